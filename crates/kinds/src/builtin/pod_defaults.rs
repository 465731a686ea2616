//! Defaults of a pod's spec that are code upstream: the same for pods and for every template of pods. What only pods get
//! is in `pods`.

use serde_json::{Value, json};

use super::read::{Read, Write};
use crate::quantity::Quantity;

/// `SetDefaults_PodSpec` and everything below it.
pub fn pod_spec(spec: &mut Value) {
    for volume in spec.list_mut("volumes") {
        self::volume(volume);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        spec.list_mut(list).iter_mut().for_each(container);
    }
    // The old name of the service account mirrors the new one.
    let account =
        [spec.text("serviceAccountName"), spec.text("serviceAccount")].into_iter().find(|name| !name.is_empty());
    if let Some(account) = account.map(str::to_owned) {
        spec.set("serviceAccountName", account.as_str());
        spec.set("serviceAccount", account);
    }
    spec.set_default("dnsPolicy", "ClusterFirst");
    spec.set_default("restartPolicy", "Always");
    spec.set_if_absent("securityContext", json!({}));
    spec.set_if_absent("terminationGracePeriodSeconds", 30);
    spec.set_default("schedulerName", "default-scheduler");
    round_up(spec, "overhead");
    round_up(spec, "resources.limits");
    round_up(spec, "resources.requests");
}

fn volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|fields| fields.iter().any(|(k, v)| k != "name" && !v.is_null()));
    if !has_source {
        volume.set("emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if volume.has(source) {
            volume.set_if_absent(&format!("{source}.defaultMode"), 0o644);
        }
    }
    if volume.has("hostPath") {
        volume.set_if_absent("hostPath.type", "");
    }
    if volume.has("image") {
        let policy = pull_policy(volume.text("image.reference"));
        volume.set_default("image.pullPolicy", policy);
    }
    volume.list_mut("downwardAPI.items").iter_mut().for_each(field_ref);
    for source in volume.list_mut("projected.sources") {
        source.list_mut("downwardAPI.items").iter_mut().for_each(field_ref);
        if source.has("serviceAccountToken") {
            source.set_if_absent("serviceAccountToken.expirationSeconds", 3600);
        }
        if source.has("podCertificate") {
            source.set_if_absent("podCertificate.maxExpirationSeconds", 24 * 3600);
        }
    }
    if volume.has("ephemeral.volumeClaimTemplate") {
        volume.set_if_absent("ephemeral.volumeClaimTemplate.spec.volumeMode", "Filesystem");
    }
}

fn field_ref(item: &mut Value) {
    if item.has("fieldRef") {
        item.set_default("fieldRef.apiVersion", "v1");
    }
}

fn container(container: &mut Value) {
    for variable in container.list_mut("env") {
        if variable.has("valueFrom.fieldRef") {
            variable.set_default("valueFrom.fieldRef.apiVersion", "v1");
        }
    }
    round_up(container, "resources.limits");
    round_up(container, "resources.requests");
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.at_mut(probe) else { continue };
        probe.set_default("timeoutSeconds", 1);
        probe.set_default("periodSeconds", 10);
        probe.set_default("successThreshold", 1);
        probe.set_default("failureThreshold", 3);
        http_get(probe);
        if probe.has("grpc") {
            probe.set_if_absent("grpc.service", "");
        }
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        if let Some(hook) = container.at_mut(hook) {
            http_get(hook);
        }
    }
    let policy = pull_policy(container.text("image"));
    container.set_default("imagePullPolicy", policy);
    container.set_default("terminationMessagePath", "/dev/termination-log");
    container.set_default("terminationMessagePolicy", "File");
}

fn http_get(handler: &mut Value) {
    if handler.has("httpGet") {
        handler.set_default("httpGet.path", "/");
        handler.set_default("httpGet.scheme", "HTTP");
    }
}

/// Amounts finer than a thousandth are rounded up.
pub fn round_up(object: &mut Value, path: &str) {
    const MILLI: i32 = -3;
    let Some(Value::Object(list)) = object.at_mut(path) else { return };
    for amount in list.values_mut() {
        let parsed = amount.as_str().and_then(|text| Quantity::parse(text).ok());
        if let Some(parsed) = parsed.filter(|parsed| !parsed.is_multiple_of(MILLI)) {
            *amount = parsed.round_up(MILLI).to_string().into();
        }
    }
}

/// An image without tag and digest is the latest, which may be another one tomorrow.
fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of a well-formed reference: `latest` when it has neither tag nor digest, `None` when it has only a digest.
fn image_tag(image: &str) -> Option<&str> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    if !is_repository(repository) || digest.is_some_and(|digest| !digest.contains(':')) {
        return None;
    }
    match tag {
        Some(tag) => Some(tag),
        None => digest.is_none().then_some("latest"),
    }
}

/// `[host[:port]/]path/of/components`; components are lower case.
fn is_repository(name: &str) -> bool {
    let mut parts: Vec<&str> = name.split('/').collect();
    let is_host =
        |part: &str| part.contains(['.', ':']) || part == "localhost" || part.contains(|c: char| c.is_uppercase());
    if parts.len() > 1 && is_host(parts[0]) {
        parts.remove(0);
    }
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    parts.iter().all(|part| {
        part.starts_with(alnum)
            && part.ends_with(alnum)
            && part.chars().all(|c| alnum(c) || matches!(c, '.' | '_' | '-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_decide_the_pull_policy() {
        let check = |image: &str, want: &str| assert_eq!(pull_policy(image), want, "{image}");
        check("nginx", "Always");
        check("nginx:latest", "Always");
        check("registry.example:5000/a/b", "Always");
        check("registry.example:5000/a/b:1", "IfNotPresent");
        check("nginx@sha256:0123", "IfNotPresent");
        check("Not A Reference", "IfNotPresent");
        check("", "IfNotPresent");
    }
}
