//! Volumes: where a pod's files come from, persistent volumes and the claims for them.

use serde_json::{Value, json};

use super::check::{self, Causes, in_range, one_of, optional_one_of, required, text};
use super::pod_check::{field_ref, node_selector, resource_field_ref};
use super::read::{Read, Write};
use super::{certificates, columns, internal, pod_defaults, resources, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

pub static PERSISTENT_VOLUME: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::persistent_volume,
    default: |volume| {
        volume.set_default("status.phase", "Pending");
        volume.set_default("spec.persistentVolumeReclaimPolicy", "Retain");
        volume.set_if_absent("spec.volumeMode", "Filesystem");
        pod_defaults::round_up(volume, "spec.capacity");
        if volume.has("spec.hostPath") {
            volume.set_if_absent("spec.hostPath.type", "");
        }
    },
    // The phase is a default that a new volume keeps.
    prepare_create: |volume| {
        volume.set("status", json!({"phase": "Pending"}));
        let now = volume.at("metadata.creationTimestamp").clone();
        volume.set("status.lastPhaseTransitionTime", now);
    },
    prepare_status: |new, old| {
        // Whoever moves the phase tells when, or does not and it is now.
        let given = new.at("status.lastPhaseTransitionTime");
        let moved = new.text("status.phase") != old.text("status.phase");
        if moved && (given.is_null() || given == old.at("status.lastPhaseTransitionTime")) {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            new.set("status.lastPhaseTransitionTime", now);
        }
    },
    validate_create: validate_volume,
    validate_update: validate_volume_update,
    columns: columns::PERSISTENT_VOLUME,
    row: rows::persistent_volume,
    returns_deleted: true,
    has_status: true,
    ..Behaviour::PLAIN
};

pub static PERSISTENT_VOLUME_CLAIM: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::claim,
    default: |claim| {
        claim.set_default("status.phase", "Pending");
        claim.set_if_absent("spec.volumeMode", "Filesystem");
        for list in ["spec.resources.limits", "spec.resources.requests", "status.capacity", "status.allocatedResources"]
        {
            pod_defaults::round_up(claim, list);
        }
    },
    prepare_create: |claim| {
        claim.set("status", json!({"phase": "Pending"}));
        drop_far_source(claim, &Value::Null);
        drop_odd_source(claim, &Value::Null);
        same_source(claim);
    },
    validate_create: |claim| {
        let mut out = Vec::new();
        claim_spec(&mut out, claim.at("spec"), "spec");
        out
    },
    prepare_update: |claim, old| {
        drop_far_source(claim, old);
        drop_odd_source(claim, old);
        same_source(claim);
    },
    validate_update: validate_claim_update,
    validate_status: validate_claim_status,
    columns: columns::PERSISTENT_VOLUME_CLAIM,
    row: rows::persistent_volume_claim,
    returns_deleted: true,
    has_status: true,
    ..Behaviour::PLAIN
};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const ONE_TYPE: &str = "may not specify more than 1 volume type";

/// The one source of a pod's volume. `pod` is the pod's name, empty in a template.
pub fn source(out: &mut Causes, volume: &Value, path: &str, pod: &str) {
    // In the order upstream looks; the second name is the one some error paths have.
    const SOURCES: [(&str, &str); 30] = [
        ("emptyDir", "emptyDir"),
        ("hostPath", "hostPath"),
        ("gitRepo", "gitRepo"),
        ("gcePersistentDisk", "persistentDisk"),
        ("awsElasticBlockStore", "awsElasticBlockStore"),
        ("secret", "secret"),
        ("nfs", "nfs"),
        ("iscsi", "iscsi"),
        ("glusterfs", "glusterfs"),
        ("flocker", "flocker"),
        ("persistentVolumeClaim", "persistentVolumeClaim"),
        ("rbd", "rbd"),
        ("cinder", "cinder"),
        ("cephfs", "cephfs"),
        ("quobyte", "quobyte"),
        ("downwardAPI", "downwardAPI"),
        ("fc", "fc"),
        ("flexVolume", "flexVolume"),
        ("configMap", "configMap"),
        ("azureFile", "azureFile"),
        ("vsphereVolume", "vsphereVolume"),
        ("photonPersistentDisk", "photonPersistentDisk"),
        ("portworxVolume", "portworxVolume"),
        ("azureDisk", "azureDisk"),
        ("storageos", "storageos"),
        ("projected", "projected"),
        ("scaleIO", "scaleIO"),
        ("csi", "csi"),
        ("ephemeral", "ephemeral"),
        ("image", "image"),
    ];
    let mut found = false;
    for (name, shown) in SOURCES.into_iter().filter(|(name, _)| volume.has(name)) {
        if found {
            // As upstream spells them.
            let name = match name {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                name => name,
            };
            out.push(Cause::forbidden(format!("{path}.{name}"), ONE_TYPE));
            continue;
        }
        found = true;
        let of = path;
        let (source, path) = (volume.at(name), format!("{path}.{shown}"));
        match name {
            "emptyDir" => {
                if check::quantity(source.at("sizeLimit")).is_negative() {
                    let detail = "SizeLimit field must be a valid resource quantity";
                    out.push(Cause::forbidden(format!("{path}.sizeLimit"), detail));
                }
            }
            "secret" => {
                required(out, source, &path, "secretName");
                check::mode(out, source, &path, "defaultMode");
                keys_to_paths(out, source, &path);
            }
            "configMap" => {
                required(out, source, &path, "name");
                check::mode(out, source, &path, "defaultMode");
                keys_to_paths(out, source, &path);
            }
            "persistentVolumeClaim" => {
                required(out, source, &path, "claimName");
            }
            "downwardAPI" => {
                check::mode(out, source, &path, "defaultMode");
                source.list("items").iter().for_each(|item| downward_file(out, item, &path));
            }
            "projected" => projected(out, source, &path),
            "gitRepo" => {
                required(out, source, &path, "repository");
                check::local_path(out, source.text("directory"), format_args!("{path}.directory"));
            }
            "csi" => {
                csi_driver_name(out, source.text("driver"), &format!("{path}.driver"));
                if source.has("nodePublishSecretRef") {
                    let name = source.text("nodePublishSecretRef.name");
                    if required(
                        out,
                        source.at("nodePublishSecretRef"),
                        format_args!("{path}.nodePublishSecretRef"),
                        "name",
                    ) {
                        text(out, name, format_args!("{path}.name"), validate::dns1123_subdomain);
                    }
                }
            }
            "ephemeral" => {
                let path = format!("{path}.volumeClaimTemplate");
                let template = source.at("volumeClaimTemplate");
                if template.is_null() {
                    out.push(Cause::required(&path, ""));
                } else {
                    claim_template(out, template, &path);
                }
                ephemeral_name(out, volume, pod, &path);
            }
            "image" => {
                required(out, source, &path, "reference");
                let policies = &["Always", "IfNotPresent", "Never"];
                one_of(out, source.at("pullPolicy"), format_args!("{path}.pullPolicy"), policies);
            }
            _ => shared(out, name, source, &path, Owner::Pod),
        }
        let portal = source.text("targetPortal");
        if name == "iscsi" && source.has("initiatorName") && long_portal(volume.text("name"), portal) {
            out.push(Cause::invalid(format!("{of}.name"), &volume.text("name").into(), LONG_PORTAL));
        }
    }
    if !found {
        out.push(Cause::required(path, "must specify a volume type"));
    }
}

const LONG_PORTAL: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

fn long_portal(volume: &str, portal: &str) -> bool {
    volume.len() + 1 + portal.len() > 64
}

/// Whose source it is: secrets of a persistent volume may be in another namespace than its claim, and it names itself.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Pod,
    Volume(&'a str),
}

fn ephemeral_name(out: &mut Causes, volume: &Value, pod: &str, path: &str) {
    let name = volume.text("name");
    if pod.is_empty() || name.is_empty() {
        return;
    }
    let claim = format!("{pod}-{name}");
    for message in validate::dns1123_subdomain(&claim) {
        let detail = format!("PVC name {}: {message}", crate::kind::go_quote(&claim));
        let path = path.trim_end_matches(".ephemeral.volumeClaimTemplate");
        out.push(Cause::invalid(format!("{path}.name"), &name.into(), &detail));
    }
}

/// The sources that pods and persistent volumes have in common.
fn shared(out: &mut Causes, name: &str, source: &Value, path: &str, owner: Owner) {
    let partition = |out: &mut Causes| {
        if !(0..=255).contains(&source.int("partition")) {
            // What is refused is not what is told: upstream takes 0 and names 1.
            let detail = "must be between 1 and 255, inclusive";
            out.push(Cause::invalid(format!("{path}.partition"), source.at("partition"), detail));
        }
    };
    let need = |out: &mut Causes, fields: &[&str]| {
        for field in fields {
            let missing = match source.at(field) {
                Value::Array(items) => items.is_empty(),
                other => other.as_str().unwrap_or_default().is_empty(),
            };
            if missing {
                out.push(Cause::required(format!("{path}.{field}"), ""));
            }
        }
    };
    let of_volume = matches!(owner, Owner::Volume(_));
    let secret = |out: &mut Causes| {
        let secret = source.at("secretRef");
        for field in ["name", "namespace"].into_iter().take(if of_volume { 2 } else { 1 }) {
            if !secret.is_null() && secret.text(field).is_empty() {
                out.push(Cause::required(format!("{path}.secretRef.{field}"), ""));
            }
        }
    };
    match name {
        "hostPath" => host_path(out, source, path),
        "nfs" => {
            need(out, &["server", "path"]);
            if !source.text("path").starts_with('/') {
                let value = Value::from(source.text("path"));
                out.push(Cause::invalid(format!("{path}.path"), &value, "must be an absolute path"));
            }
        }
        "gcePersistentDisk" => {
            need(out, &["pdName"]);
            partition(out);
        }
        "awsElasticBlockStore" => {
            need(out, &["volumeID"]);
            partition(out);
        }
        "iscsi" => iscsi(out, source, path, owner),
        "fc" => fibre_channel(out, source, path),
        "glusterfs" => {
            need(out, &["endpoints", "path"]);
            let namespace = source.at("endpointsNamespace");
            let field = format!("{path}.endpointsNamespace");
            match namespace.as_str() {
                Some("") => {
                    let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                    out.push(Cause::invalid(field, namespace, detail));
                }
                Some(name) => text(out, name, &field, validate::dns1123_label),
                None => {}
            }
        }
        "rbd" => need(out, &["monitors", "image"]),
        "cinder" => {
            need(out, &["volumeID"]);
            secret(out);
        }
        "cephfs" => need(out, &["monitors"]),
        "quobyte" => {
            const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
            let registry = source.text("registry");
            let field = format!("{path}.registry");
            if registry.is_empty() {
                out.push(Cause::required(field, PAIRS));
            } else if source.text("tenant").len() >= 65 {
                let detail = "must be a UUID and may not exceed a length of 64 characters";
                out.push(Cause::required(format!("{path}.tenant"), detail));
            } else {
                for _ in registry.split(',').filter(|pair| !is_host_port(pair)) {
                    out.push(Cause::invalid(&field, source.at("registry"), PAIRS));
                }
            }
            need(out, &["volume"]);
        }
        "flexVolume" => {
            need(out, &["driver"]);
            for (key, _) in source.at("options").entries() {
                let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
                let dotted = format!(".{}", namespace.to_lowercase());
                if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
                    let detail = "kubernetes.io and k8s.io namespaces are reserved";
                    out.push(Cause::invalid(format!("{path}.options[{key}]"), &key.as_str().into(), detail));
                }
            }
        }
        "azureFile" => {
            need(out, &["secretName", "shareName"]);
            if source.at("secretNamespace") == "" {
                out.push(Cause::required(format!("{path}.secretNamespace"), ""));
            }
        }
        "vsphereVolume" => need(out, &["volumePath"]),
        "photonPersistentDisk" => need(out, &["pdID"]),
        "portworxVolume" => need(out, &["volumeID"]),
        "azureDisk" => {
            need(out, &["diskName", "diskURI"]);
            azure_disk(out, source, path);
        }
        "scaleIO" => need(out, &["gateway", "system", "volumeName"]),
        "storageos" => {
            if required(out, source, path, "volumeName") {
                text(out, source.text("volumeName"), format_args!("{path}.volumeName"), validate::dns1123_label);
            }
            if !source.text("volumeNamespace").is_empty() {
                text(
                    out,
                    source.text("volumeNamespace"),
                    format_args!("{path}.volumeNamespace"),
                    validate::dns1123_label,
                );
            }
            secret(out);
        }
        "flocker" => {
            let [name, id] = ["datasetName", "datasetUUID"].map(|field| source.text(field));
            if name.is_empty() && id.is_empty() {
                out.push(Cause::required(path, "one of datasetName and datasetUUID is required"));
            }
            if !name.is_empty() && !id.is_empty() {
                let detail = "datasetName and datasetUUID can not be specified simultaneously";
                out.push(Cause::invalid(path, &"resource".into(), detail));
            }
            if name.contains('/') {
                out.push(Cause::invalid(format!("{path}.datasetName"), &name.into(), "must not contain '/'"));
            }
        }
        _ => {}
    }
}

/// As Go splits an address: one colon, or brackets around a host that has more.
fn is_host_port(pair: &str) -> bool {
    match pair.rsplit_once(':') {
        Some((host, port)) if host.starts_with('[') => host.ends_with(']') && !port.contains([']', '[']),
        Some((host, _)) => !host.contains([':', '[', ']']),
        None => false,
    }
}

fn fibre_channel(out: &mut Causes, source: &Value, path: &str) {
    let (names, ids) = (source.list("targetWWNs"), source.list("wwids"));
    let field = format!("{path}.targetWWNs");
    if names.is_empty() && ids.is_empty() {
        out.push(Cause::required(&field, "must specify either targetWWNs or wwids, but not both"));
    }
    if !names.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        out.push(Cause::invalid(&field, source.at("targetWWNs"), detail));
    }
    if !names.is_empty() {
        match source.opt_int("lun") {
            None => out.push(Cause::required(format!("{path}.lun"), "lun is required if targetWWNs is specified")),
            Some(lun) => in_range(out, lun, format_args!("{path}.lun"), 0, 255),
        }
    }
}

fn azure_disk(out: &mut Causes, source: &Value, path: &str) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let field = format!("{path}.cachingMode");
    optional_one_of(out, source.at("cachingMode"), &field, &["None", "ReadOnly", "ReadWrite"]);
    let kind = source.at("kind");
    optional_one_of(out, kind, format_args!("{path}.kind"), &["Dedicated", "Managed", "Shared"]);
    let Some(kind) = kind.as_str() else { return };
    let (uri, field) = (source.text("diskURI"), format!("{path}.diskURI"));
    let (prefix, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !uri.starts_with(prefix) {
        out.push(Cause::not_supported(field, &uri.into(), &[form]));
    }
}

fn host_path(out: &mut Causes, source: &Value, path: &str) {
    const TYPES: &[&str] =
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if required(out, source, path, "path") {
        check::no_backsteps(out, source.text("path"), format_args!("{path}.path"));
        optional_one_of(out, source.at("type"), format_args!("{path}.type"), TYPES);
    }
}

fn iscsi(out: &mut Causes, source: &Value, path: &str, owner: Owner) {
    required(out, source, path, "targetPortal");
    let portal = source.text("targetPortal");
    if let Owner::Volume(name) = owner
        && source.has("initiatorName")
        && long_portal(name, portal)
    {
        out.push(Cause::invalid(format!("{path}.targetportal"), &portal.into(), LONG_PORTAL));
    }
    let name = |out: &mut Causes, name: &Value, field: String| {
        let text = name.as_str().unwrap_or_default();
        let known = ["iqn", "eui", "naa"].iter().any(|prefix| text.starts_with(prefix));
        if !known && matches!(owner, Owner::Pod) {
            out.push(Cause::invalid(field, name, "must be valid format starting with iqn, eui, or naa"));
        } else if !is_iscsi_name(text) {
            out.push(Cause::invalid(field, name, "must be valid format"));
        }
    };
    if required(out, source, path, "iqn") {
        name(out, source.at("iqn"), format!("{path}.iqn"));
    }
    in_range(out, source.int("lun"), format_args!("{path}.lun"), 0, 255);
    let secret = source.at("secretRef");
    if (source.flag("chapAuthDiscovery") || source.flag("chapAuthSession")) && secret.is_null() {
        out.push(Cause::required(format!("{path}.secretRef"), ""));
    }
    if matches!(owner, Owner::Volume(_)) && !secret.is_null() && secret.text("name").is_empty() {
        out.push(Cause::required(format!("{path}.secretRef.name"), ""));
    }
    if source.has("initiatorName") {
        name(out, source.at("initiatorName"), format!("{path}.initiatorname"));
    }
}

/// `iqn.YYYY-MM.domain:name`, or `eui.` or `naa.` with so many letters and digits.
fn is_iscsi_name(name: &str) -> bool {
    let coded = |prefix: &str, length: usize| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            let mut characters = rest.chars();
            characters.next().is_some()
                && characters.as_str().len() == length
                && characters.all(|c| c.is_ascii_alphanumeric())
        })
    };
    let digits = |text: &str, many: usize| text.len() == many && text.bytes().all(|b| b.is_ascii_digit());
    let qualified = || {
        let (year, rest) = name.strip_prefix("iqn.")?.split_once('-')?;
        let (month, rest) = rest.split_once('.')?;
        let (domain, own) = rest.split_once(':')?;
        let right = digits(year, 4)
            && digits(month, 2)
            && !domain.is_empty()
            && domain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
            && !own.is_empty()
            && !own.contains(|c: char| c.is_ascii_whitespace() || ",;*&$|".contains(c));
        Some(right)
    };
    coded("eui", 16) || coded("naa", 32) || qualified() == Some(true)
}

fn keys_to_paths(out: &mut Causes, source: &Value, path: &str) {
    for (at, item) in source.list("items").iter().enumerate() {
        let path = format!("{path}.items[{at}]");
        required(out, item, &path, "key");
        required(out, item, &path, "path");
        check::local_free_path(out, item.text("path"), format_args!("{path}.path"));
        check::mode(out, item, &path, "mode");
    }
}

fn downward_file(out: &mut Causes, item: &Value, path: &str) {
    const FIELDS: &[&str] =
        &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    required(out, item, path, "path");
    check::local_free_path(out, item.text("path"), format_args!("{path}.path"));
    match (item.has("fieldRef"), item.has("resourceFieldRef")) {
        (true, both) => {
            field_ref(out, item.at("fieldRef"), &format!("{path}.fieldRef"), FIELDS);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                out.push(Cause::invalid(path, &"resource".into(), detail));
            }
        }
        (false, true) => {
            resource_field_ref(out, item.at("resourceFieldRef"), &format!("{path}.resourceFieldRef"), true)
        }
        (false, false) => out.push(Cause::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    check::mode(out, item, path, "mode");
}

fn projected(out: &mut Causes, source: &Value, path: &str) {
    check::mode(out, source, path, "defaultMode");
    let mut taken: Vec<String> = Vec::new();
    let mut take = |out: &mut Causes, file: &str, shown: &str| {
        if taken.iter().any(|other| other == file) {
            out.push(Cause::invalid(path, &shown.into(), "conflicting duplicate paths"));
        } else {
            taken.push(file.to_owned());
        }
    };
    for (at, each) in source.list("sources").iter().enumerate() {
        let each_path = format!("{path}.sources[{at}]");
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            if each.has(kind) {
                count += 1;
                let (of, path) = (each.at(kind), format!("{each_path}.{kind}"));
                required(out, of, &path, "name");
                for (at, item) in of.list("items").iter().enumerate() {
                    let one = json!({"items": [item]});
                    let mut wrong = Vec::new();
                    keys_to_paths(&mut wrong, &one, &path);
                    for cause in &mut wrong {
                        cause.field = cause.field.replacen("items[0]", &format!("items[{at}]"), 1);
                    }
                    out.extend(wrong);
                    if !item.text("path").is_empty() {
                        take(out, item.text("path"), of.text("name"));
                    }
                }
            }
        }
        if each.has("downwardAPI") {
            count += 1;
            for item in each.list("downwardAPI.items") {
                downward_file(out, item, &format!("{each_path}.downwardAPI"));
                if !item.text("path").is_empty() {
                    take(out, item.text("path"), item.text("path"));
                }
            }
        }
        if each.has("serviceAccountToken") {
            count += 1;
            token_projection(out, each.at("serviceAccountToken"), path, &format!("{each_path}.serviceAccountToken"));
        }
        if each.has("clusterTrustBundle") {
            count += 1;
            let (bundle, path) = (each.at("clusterTrustBundle"), format!("{each_path}.clusterTrustBundle"));
            trust_bundle(out, bundle, &path);
            required(out, bundle, &path, "path");
            check::local_free_path(out, bundle.text("path"), format_args!("{path}.path"));
            take(out, bundle.text("path"), bundle.text("path"));
        }
        if each.has("podCertificate") {
            count += 1;
            pod_certificate(out, each.at("podCertificate"), &format!("{each_path}.podCertificate"), &mut take);
        }
        if count > 1 {
            out.push(Cause::forbidden(&each_path, "may not specify more than 1 volume type per source"));
        }
    }
}

fn trust_bundle(out: &mut Causes, bundle: &Value, path: &str) {
    let selector = bundle.at("labelSelector");
    let field = format!("{path}.labelSelector");
    match (bundle.at("name").as_str(), bundle.at("signerName").as_str()) {
        (Some(_), Some(_)) => {
            let shown = internal::shown("api.core.v1.ClusterTrustBundleProjection", bundle);
            out.push(Cause::invalid(path, &shown, "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            let field = format!("{path}.name");
            if name.is_empty() {
                out.push(Cause::required(&field, "must be a valid object name"));
            }
            // The bundles of a signer are named after it.
            let signer = name.rsplit_once(':').map_or(String::new(), |(signer, _)| signer.replace(':', "/"));
            for why in certificates::bundle_name(&signer, name, false) {
                let detail = format!("not a valid clustertrustbundlename: {why}");
                out.push(Cause::invalid(&field, &name.into(), &detail));
            }
            if !selector.is_null() {
                let detail = "labelSelector must be unset if name is specified";
                out.push(Cause::invalid(format!("{path}.labelSelector"), selector, detail));
            }
        }
        (None, Some(signer)) => {
            let signer_field = format!("{path}.signerName");
            if signer.is_empty() {
                out.push(Cause::required(&signer_field, "must be a valid signer name"));
            }
            out.extend(certificates::validate_signer(signer, &signer_field));
            check::label_selector(out, selector, &field);
        }
        (None, None) => out.push(Cause::required(path, "either name or signerName must be specified")),
    }
}

fn token_projection(out: &mut Causes, token: &Value, volume_path: &str, path: &str) {
    const SECONDS_MIN: i64 = 10 * 60;
    const SECONDS_MAX: i64 = 1 << 32;
    let field = format!("{path}.expirationSeconds");
    match token.opt_int("expirationSeconds") {
        None => out.push(Cause::required(field, "")),
        Some(seconds) => {
            if seconds < SECONDS_MIN {
                let detail = "may not specify a duration less than 10 minutes";
                out.push(Cause::invalid(&field, &seconds.into(), detail));
            }
            if seconds > SECONDS_MAX {
                let detail = "may not specify a duration larger than 2^32 seconds";
                out.push(Cause::invalid(&field, &seconds.into(), detail));
            }
        }
    }
    // The path is the volume's in the error, as upstream has it.
    if required(out, token, volume_path, "path") {
        check::local_free_path(out, token.text("path"), format_args!("{volume_path}.path"));
    }
}

fn pod_certificate(out: &mut Causes, of: &Value, path: &str, take: &mut dyn FnMut(&mut Causes, &str, &str)) {
    out.extend(certificates::validate_signer(of.text("signerName"), &format!("{path}.signerName")));
    certificates::user_annotations(out, of.at("userAnnotations"), &format!("{path}.userAnnotations"));
    const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    let type_ = of.text("keyType");
    if !KEY_TYPES.contains(&type_) {
        out.push(Cause::not_supported(format!("{path}.keyType"), &type_.into(), KEY_TYPES));
    }
    if let Some(seconds) = of.opt_int("maxExpirationSeconds") {
        let (least, most) = (3600, certificates::pod_certificate_seconds_max(of.text("signerName")));
        let field = format!("{path}.maxExpirationSeconds");
        if seconds < least {
            let detail = format!("if provided, maxExpirationSeconds must be >= {least}");
            out.push(Cause::invalid(&field, &seconds.into(), &detail));
        }
        if seconds > most {
            let detail = format!("if provided, maxExpirationSeconds must be <= {most}");
            out.push(Cause::invalid(&field, &seconds.into(), &detail));
        }
    }
    let mut paths = 0;
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let file = of.text(field);
        if !file.is_empty() {
            paths += 1;
            check::local_free_path(out, file, format_args!("{path}.{field}"));
            take(out, file, file);
        }
    }
    if paths == 0 {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        out.push(Cause::required(path, detail));
    }
}

/// The name a storage driver goes by.
pub fn csi_driver_name(out: &mut Causes, name: &str, path: &str) {
    if name.is_empty() {
        return out.push(Cause::required(path, ""));
    }
    if name.len() > 63 {
        out.push(Cause::too_long(path, 63));
    }
    validate::push_all(out, path, name, validate::dns1123_subdomain(&name.to_lowercase()));
}

/// As [`csi_driver_name`], where the rule is declared: it has other words.
pub fn declared_driver_name(out: &mut Causes, name: &str, path: &str) {
    const NAME_MAX: usize = 63;
    if name.is_empty() {
        return out.push(Cause::required(path, ""));
    }
    if name.chars().count() > NAME_MAX {
        return out.push(Cause::too_many_characters(path, NAME_MAX));
    }
    if !validate::is_subdomain(&name.to_lowercase()) {
        let what = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end \
                    with an alphanumeric character";
        let pattern = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
        out.push(Cause::invalid(path, &name.into(), &validate::regex_text(what, pattern, &["Example.com"])));
    }
}

/// The metadata of what objects are made of: labels and annotations alone.
pub fn template_metadata(out: &mut Causes, metadata: &Value, path: &str) {
    out.extend(validate::annotations(metadata.at("annotations"), &format!("{path}.annotations")));
    out.extend(validate::labels(metadata.at("labels"), format_args!("{path}.labels")));
    for (field, value) in metadata.as_object().into_iter().flatten() {
        let named = if field == "uid" { "uID" } else { field };
        if !matches!(named, "annotations" | "labels") && !value.is_null() {
            out.push(Cause::forbidden(format!("{path}.{named}"), "cannot be set"));
        }
    }
}

/// What claims are made of: in pods and stateful sets.
pub fn claim_template(out: &mut Causes, template: &Value, path: &str) {
    template_metadata(out, template.at("metadata"), &format!("{path}.metadata"));
    claim_spec(out, template.at("spec"), &format!("{path}.spec"));
}

/// `ValidatePersistentVolumeClaimSpec`.
pub fn claim_spec(out: &mut Causes, spec: &Value, path: &str) {
    let field = format!("{path}.accessModes");
    if spec.list("accessModes").is_empty() {
        out.push(Cause::required(&field, "at least 1 access mode is required"));
    }
    check::label_selector(out, spec.at("selector"), format_args!("{path}.selector"));
    access_modes(out, spec, &field);
    let storage = spec.at("resources.requests.storage");
    let field = format!("{path}.resources[storage]");
    if storage.is_null() {
        out.push(Cause::required(field, ""));
    } else {
        positive_quantity(out, storage, &field);
    }
    if let Some(class) = spec.at("storageClassName").as_str().filter(|class| !class.is_empty()) {
        text(out, class, format_args!("{path}.storageClassName"), validate::dns1123_subdomain);
    }
    optional_one_of(out, spec.at("volumeMode"), format_args!("{path}.volumeMode"), &["Block", "Filesystem"]);
    for name in ["dataSource", "dataSourceRef"] {
        data_source(out, spec.at(name), &format!("{path}.{name}"));
    }
    let (source, reference) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if reference.text("namespace").is_empty() {
        let same = ["kind", "name"].iter().all(|field| source.text(field) == reference.text(field))
            && source.text("apiGroup") == reference.text("apiGroup");
        if !source.is_null() && !reference.is_null() && !same {
            out.push(Cause::invalid(path, &json!({}), "must match dataSourceRef"));
        }
    } else if !source.is_null() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        out.push(Cause::invalid(path, &json!({}), detail));
    }
    if let Some(class) = spec.at("volumeAttributesClassName").as_str().filter(|class| !class.is_empty()) {
        text(out, class, format_args!("{path}.volumeAttributesClassName"), validate::dns1123_subdomain);
    }
}

fn data_source(out: &mut Causes, source: &Value, path: &str) {
    if source.is_null() {
        return;
    }
    required(out, source, path, "name");
    required(out, source, path, "kind");
    let group = source.text("apiGroup");
    if group.is_empty() && source.text("kind") != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        out.push(Cause::invalid(path, &source.text("kind").into(), detail));
    }
    if !group.is_empty() {
        text(out, group, format_args!("{path}.apiGroup"), validate::dns1123_subdomain);
    }
    if !source.text("namespace").is_empty() {
        text(out, source.text("namespace"), format_args!("{path}.namespace"), validate::dns1123_label);
    }
}

/// Content of another namespace is not taken: Kubernetes' gate for it, CrossNamespaceVolumeDataSource, is off by default.
fn drop_far_source(claim: &mut Value, old: &Value) {
    if !claim.text("spec.dataSourceRef.namespace").is_empty() && !old.has("spec.dataSourceRef") {
        claim.remove("spec.dataSourceRef");
    }
}

/// The old field takes claims and snapshots only; anything else in it is dropped without a word.
fn drop_odd_source(claim: &mut Value, old: &Value) {
    if old.has("spec.dataSource") || old.has("spec.dataSourceRef") {
        return;
    }
    let source = claim.at("spec.dataSource");
    let known = [("PersistentVolumeClaim", ""), ("VolumeSnapshot", "snapshot.storage.k8s.io")];
    if !known.contains(&(source.text("kind"), source.text("apiGroup"))) && !claim.has("spec.dataSourceRef") {
        claim.remove("spec.dataSource");
    }
}

/// The old and the new field for where a claim's content comes from say the same.
fn same_source(claim: &mut Value) {
    let (source, reference) = (claim.at("spec.dataSource").clone(), claim.at("spec.dataSourceRef").clone());
    if !source.is_null() && reference.is_null() {
        claim.set("spec.dataSourceRef", source);
    } else if source.is_null() && !reference.is_null() && reference.text("namespace").is_empty() {
        claim.set("spec.dataSource", reference);
    }
}

fn access_modes(out: &mut Causes, spec: &Value, path: &str) {
    let modes = spec.list("accessModes");
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str().unwrap_or_default())) {
        out.push(Cause::not_supported(path, mode, ACCESS_MODES));
    }
    let of_pod = |mode: &Value| mode == "ReadWriteOncePod";
    let other = |mode: &&Value| !of_pod(mode) && ACCESS_MODES.contains(&mode.as_str().unwrap_or_default());
    if modes.iter().any(of_pod) && modes.iter().any(|mode| other(&mode)) {
        out.push(Cause::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn positive_quantity(out: &mut Causes, value: &Value, path: &str) {
    let amount = check::quantity(value);
    if amount.is_zero() || amount.is_negative() {
        out.push(Cause::invalid(path, value, "must be greater than zero"));
    }
}

fn validate_volume(volume: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    volume_spec(&mut causes, volume.at("spec"), "spec", volume.text("metadata.name"), false);
    causes
}

/// What an attachment says itself about the volume, instead of naming one.
pub fn inline_volume(out: &mut Causes, spec: &Value, path: &str) {
    volume_spec(out, spec, path, "", true);
}

fn volume_spec(out: &mut Causes, spec: &Value, path: &str, name_of: &str, inline: bool) {
    const NOT_INLINE: &str = "may not be specified in the context of inline volumes";
    const SOURCES: [(&str, &str); 23] = [
        ("hostPath", "hostPath"),
        ("gcePersistentDisk", "persistentDisk"),
        ("awsElasticBlockStore", "awsElasticBlockStore"),
        ("glusterfs", "glusterfs"),
        ("flocker", "flocker"),
        ("nfs", "nfs"),
        ("rbd", "rbd"),
        ("quobyte", "quobyte"),
        ("cephfs", "cephfs"),
        ("iscsi", "iscsi"),
        ("cinder", "cinder"),
        ("fc", "fc"),
        ("flexVolume", "flexVolume"),
        ("azureFile", "azureFile"),
        ("vsphereVolume", "vsphereVolume"),
        ("photonPersistentDisk", "photonPersistentDisk"),
        ("portworxVolume", "portworxVolume"),
        ("azureDisk", "azureDisk"),
        ("scaleIO", "scaleIO"),
        ("local", "local"),
        ("storageos", "storageos"),
        ("csi", "csi"),
        ("", ""),
    ];
    let of = |field: &str| format!("{path}.{field}");
    if inline {
        for field in ["claimRef", "capacity"].into_iter().filter(|field| !spec.at(field).is_nothing()) {
            out.push(Cause::forbidden(of(field), NOT_INLINE));
        }
        if !spec.has("csi") {
            out.push(Cause::required(of("csi"), "has to be specified in the context of inline volumes"));
        }
    }
    if spec.list("accessModes").is_empty() {
        out.push(Cause::required(of("accessModes"), ""));
    }
    access_modes(out, spec, &of("accessModes"));
    if !inline {
        volume_capacity(out, spec.at("capacity"), &of("capacity"));
    }
    let policy = spec.at("persistentVolumeReclaimPolicy");
    if !inline {
        const POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
        optional_one_of(out, policy, of("persistentVolumeReclaimPolicy"), POLICIES);
    } else if !policy.is_null() && policy != "Retain" {
        let detail = "may only be Retain in the context of inline volumes";
        out.push(Cause::forbidden(of("persistentVolumeReclaimPolicy"), detail));
    }
    let required_nodes = if inline { &Value::Null } else { spec.at("nodeAffinity.required") };
    if spec.has("nodeAffinity") {
        let path = of("nodeAffinity.required");
        if inline {
            out.push(Cause::forbidden(of("nodeAffinity"), NOT_INLINE));
        } else if required_nodes.is_null() {
            out.push(Cause::required(path, "must specify required node constraints"));
        } else {
            node_selector(out, required_nodes, &path);
        }
    }
    let mut found = false;
    for (name, shown) in SOURCES.into_iter().filter(|(name, _)| !name.is_empty() && spec.has(name)) {
        if found {
            out.push(Cause::forbidden(of(name), ONE_TYPE));
            continue;
        }
        found = true;
        let (source, path) = (spec.at(name), of(shown));
        match name {
            "local" => {
                if required(out, source, &path, "path") {
                    check::no_backsteps(out, source.text("path"), format_args!("{path}.path"));
                }
                if required_nodes.is_null() {
                    out.push(Cause::required(of("nodeAffinity"), "Local volume requires node affinity"));
                }
            }
            "csi" => {
                csi_driver_name(out, source.text("driver"), &format!("{path}.driver"));
                required(out, source, &path, "volumeHandle");
                for secret in [
                    "controllerPublishSecretRef",
                    "controllerExpandSecretRef",
                    "nodePublishSecretRef",
                    "nodeExpandSecretRef",
                ] {
                    if source.has(secret) {
                        let (secret, path) = (source.at(secret), format!("{path}.{secret}"));
                        if required(out, secret, &path, "name") {
                            text(out, secret.text("name"), format_args!("{path}.name"), validate::dns1123_subdomain);
                        }
                        if required(out, secret, &path, "namespace") {
                            text(
                                out,
                                secret.text("namespace"),
                                format_args!("{path}.namespace"),
                                validate::dns1123_label,
                            );
                        }
                    }
                }
            }
            _ => shared(out, name, source, &path, Owner::Volume(name_of)),
        }
    }
    if !found {
        out.push(Cause::required(path, "must specify a volume type"));
    }
    let root = spec.text("hostPath.path").starts_with('/')
        && spec.text("hostPath.path").split('/').all(|part| matches!(part, "" | "." | ".."));
    if root && policy == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        out.push(Cause::forbidden(of("persistentVolumeReclaimPolicy"), detail));
    }
    if !spec.text("storageClassName").is_empty() {
        match inline {
            true => out.push(Cause::forbidden(of("storageClassName"), NOT_INLINE)),
            false => text(out, spec.text("storageClassName"), of("storageClassName"), validate::dns1123_subdomain),
        }
    }
    let mode = spec.at("volumeMode");
    if !inline {
        optional_one_of(out, mode, of("volumeMode"), &["Block", "Filesystem"]);
    } else if !mode.is_null() && mode != "Filesystem" {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        out.push(Cause::forbidden(of("volumeMode"), detail));
    }
    if let Some(class) = spec.at("volumeAttributesClassName").as_str().filter(|_| !inline) {
        let path = of("volumeAttributesClassName");
        if class.is_empty() {
            out.push(Cause::required(path, "an empty string is disallowed"));
        } else {
            text(out, class, path, validate::dns1123_subdomain);
        }
        if !spec.has("csi") {
            out.push(Cause::required(of("csi"), "has to be specified when using volumeAttributesClassName"));
        }
    }
}

fn volume_capacity(out: &mut Causes, capacity: &Value, path: &str) {
    if capacity.is_nothing() {
        out.push(Cause::required(path, ""));
    }
    if !capacity.has("storage") || capacity.entries().len() > 1 {
        out.push(Cause::not_supported(path, capacity, &["storage"]));
    }
    for (name, value) in capacity.entries() {
        let path = format!("{path}[{name}]");
        let whole = check::quantity(value).value();
        if whole < 0 {
            out.push(Cause::invalid(&path, &whole.into(), "must be a valid resource quantity"));
        }
        positive_quantity(out, value, &path);
    }
}

fn validate_volume_update(new: &Value, old: &Value) -> Vec<Cause> {
    const OTHERS: [&str; 10] = [
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeMode",
        "nodeAffinity",
        "volumeAttributesClassName",
        "csi.controllerExpandSecretRef",
    ];
    let mut out = validate_volume(new);
    let source = |volume: &Value| {
        let mut spec = volume.at("spec").clone();
        for field in OTHERS {
            // The secret may be added to a volume that has none, not changed.
            if !field.contains('.') || !old.has("spec.csi.controllerExpandSecretRef") {
                spec.remove(field);
            }
        }
        spec
    };
    let (before, after) = (source(old), source(new));
    if before != after {
        let diff =
            internal::diff_of_inlined("api.core.v1.PersistentVolumeSpec", "PersistentVolumeSource", &before, &after);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
        out.push(Cause::forbidden("spec.persistentvolumesource", &detail));
    }
    out.extend(validate::immutable(new.at("spec.volumeMode"), old.at("spec.volumeMode"), "volumeMode"));
    let (before, after) = (old.at("spec.nodeAffinity"), new.at("spec.nodeAffinity"));
    if !before.is_null() && !same_but_for_label_names(after, before) {
        let detail = "field is immutable, except for updating from beta label to GA";
        let shown = match after {
            Value::Null => Value::Null,
            after => internal::shown("api.core.v1.VolumeNodeAffinity", after),
        };
        out.push(Cause::invalid("nodeAffinity", &shown, detail));
    }
    if old.has("spec.volumeAttributesClassName") && !new.has("spec.volumeAttributesClassName") {
        let detail = "update from non-nil value to nil is forbidden";
        out.push(Cause::forbidden("spec.volumeAttributesClassName", detail));
    }
    out
}

/// Labels of nodes may be given their present names.
fn same_but_for_label_names(after: &Value, before: &Value) -> bool {
    const RENAMED: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    let mut before = before.clone();
    for (at, term) in before.list_mut("required.nodeSelectorTerms").iter_mut().enumerate() {
        let new = after.list("required.nodeSelectorTerms").get(at).unwrap_or(&Value::Null);
        for list in ["matchExpressions", "matchFields"] {
            for (expression, new) in term.list_mut(list).iter_mut().zip(new.list(list)) {
                if RENAMED.contains(&(expression.text("key"), new.text("key"))) {
                    expression.set("key", new.text("key"));
                }
            }
        }
    }
    before == *after
}

fn validate_claim_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    claim_spec(&mut out, new.at("spec"), "spec");
    let (mut after, mut before) = (new.at("spec").clone(), old.at("spec").clone());
    if before.text("volumeName").is_empty() {
        set_same(&mut before, &after, "volumeName");
    }
    class_of_annotation(&mut out, &mut after, new, old);
    if new.text("status.phase") == "Bound" {
        if after.has("resources.requests") {
            set_same(&mut after, &before, "resources.requests.storage");
        }
        set_same(&mut after, &before, "volumeAttributesClassName");
    }
    if before != after {
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{}",
            internal::diff("api.core.v1.PersistentVolumeClaimSpec", &before, &after)
        );
        out.push(Cause::forbidden("spec", &detail));
    }
    let size = |claim: &Value, path: &str| check::quantity(claim.at(path));
    let wanted = size(new, "spec.resources.requests.storage");
    if wanted < size(old, "spec.resources.requests.storage") && wanted <= size(old, "status.capacity.storage") {
        let detail = "field can not be less than status.capacity";
        out.push(Cause::forbidden("spec.resources.requests.storage", detail));
    }
    out.extend(validate::immutable(new.at("spec.volumeMode"), old.at("spec.volumeMode"), "volumeMode"));
    if old.has("status.currentVolumeAttributesClassName") {
        let what = match new.at("spec.volumeAttributesClassName").as_str() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return out,
        };
        let detail = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        out.push(Cause::forbidden("spec.volumeAttributesClassName", &detail));
    }
    out
}

/// The class may move from the annotation that was there before the field into it, and a claim without one may get one.
fn class_of_annotation(out: &mut Causes, after: &mut Value, new: &Value, old: &Value) {
    const ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
    let [now, was] = [new, old].map(|claim| claim.at("metadata.annotations").key(ANNOTATION));
    let [class, before] = [new, old].map(|claim| claim.at("spec.storageClassName"));
    if !was.is_null() && before.is_null() && class == was && (now.is_null() || now == was) {
        return after.remove("storageClassName");
    }
    let [now_text, was_text] = [now, was].map(|class| class.as_str().unwrap_or_default());
    if now_text != was_text {
        let path = format!("metadata.annotations.{ANNOTATION}");
        out.push(Cause::invalid(path, &now_text.into(), "field is immutable"));
    }
    if !class.is_null() && before.is_null() && (was.is_null() || class == was) {
        after.remove("storageClassName");
    }
}

fn validate_claim_status(new: &Value, _: &Value) -> Vec<Cause> {
    const RESIZES: &[&str] = &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let mut out = Vec::new();
    let basic = |out: &mut Causes, value: &Value, path: &str| {
        let whole = check::quantity(value).value();
        if whole < 0 {
            out.push(Cause::invalid(path, &whole.into(), "must be a valid resource quantity"));
        }
        whole >= 0
    };
    for (name, amount) in new.at("status.capacity").entries() {
        basic(&mut out, amount, &format!("status.capacity[{name}]"));
    }
    for (name, status) in new.at("status.allocatedResourceStatuses").entries() {
        let path = "status.allocatedResourceStatuses";
        claim_resource(&mut out, name, path);
        if !RESIZES.contains(&status.as_str().unwrap_or_default()) {
            let mut sorted = RESIZES.to_vec();
            sorted.sort_unstable();
            out.push(Cause::not_supported(path, &name.as_str().into(), &sorted));
        }
    }
    for (name, amount) in new.at("status.allocatedResources").entries() {
        let path = "status.allocatedResources";
        let at = format!("{path}[{name}]");
        if claim_resource(&mut out, name, path) && basic(&mut out, amount, &at) {
            resources::amount(&mut out, "storage", amount, &at);
        }
    }
    out
}

/// Of Kubernetes' own resources a claim has storage only.
fn claim_resource(out: &mut Causes, name: &str, path: &str) -> bool {
    let before = out.len();
    text(out, name, path, validate::qualified_name);
    if out.len() == before && resources::is_native(name) && name != "storage" {
        out.push(Cause::not_supported(path, &name.into(), &["storage"]));
    }
    out.len() == before
}

fn set_same(target: &mut Value, source: &Value, path: &str) {
    match source.at(path) {
        Value::Null => target.remove(path),
        value => target.set(path, value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of where a claim's content comes from, when it is created or comes after `old`.
    fn check_sources(old: Option<Value>, sent: Value, kept: Value) {
        let mut claim = json!({"spec": sent});
        match old {
            None => (PERSISTENT_VOLUME_CLAIM.prepare_create)(&mut claim),
            Some(old) => (PERSISTENT_VOLUME_CLAIM.prepare_update)(&mut claim, &json!({"spec": old})),
        }
        assert_eq!(claim["spec"], kept);
    }

    #[test]
    fn claims_come_from_their_own_namespace() {
        let claim = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let populator = json!({"apiGroup": "example.com", "kind": "Populator", "name": "a"});
        let far = json!({"kind": "PersistentVolumeClaim", "name": "a", "namespace": "other"});
        let both = json!({"dataSource": claim, "dataSourceRef": claim});
        check_sources(None, json!({"dataSource": claim}), both.clone());
        check_sources(None, json!({"dataSource": populator}), json!({}));
        let kept = json!({"dataSource": populator, "dataSourceRef": populator});
        check_sources(None, json!({"dataSourceRef": populator}), kept);
        check_sources(None, json!({"dataSourceRef": far}), json!({}));
        // Who does not know the new field may leave it out.
        check_sources(Some(both.clone()), json!({"dataSource": claim}), both);
        check_sources(Some(json!({})), json!({"dataSource": populator}), json!({}));
        check_sources(Some(json!({})), json!({"dataSourceRef": far}), json!({}));
    }

    #[test]
    fn sources_of_volumes_do_not_change() {
        let volume = |path: &str| json!({"spec": {"hostPath": {"path": path, "type": ""}}});
        let causes = (PERSISTENT_VOLUME.validate_update)(&volume("/b"), &volume("/a"));
        let want = concat!(
            "Forbidden: spec.persistentvolumesource is immutable after creation\n@@ -2,7 +2,7 @@\n  \"GCEPersistentDisk\": null,\n",
            "  \"AWSElasticBlockStore\": null,\n  \"HostPath\": {\n-  \"Path\": \"/a\",\n+  \"Path\": \"/b\",\n   \"Type\": \"\"\n  },\n",
            "  \"Glusterfs\": null,\n",
        );
        assert!(causes.iter().any(|cause| cause.message == want), "{causes:?}");
    }
}
