//! The small files of `/etc` that each pod has of its own. Pure.

use crate::pod::{DnsConfig, Pod, PodSpec};

/// What resolvers read of `resolv.conf`, per list.
const SEARCHES_MAX: usize = 32;
const NAMESERVERS_MAX: usize = 3;

/// The pod's `/etc/resolv.conf`. `host` is the host's.
pub fn resolv_conf(pod: &Pod, dns: &str, domain: &str, host: &str) -> String {
    let namespace = &pod.metadata.namespace;
    let words = |word: &str| -> Vec<String> {
        let lines = host.lines().filter_map(|line| line.trim().strip_prefix(word));
        lines.flat_map(|rest| rest.split_ascii_whitespace().map(str::to_owned)).collect()
    };
    let of_host = || (words("nameserver"), words("search"), words("options"));
    let policy = pod.spec.dns_policy.as_str();
    let (mut servers, mut searches, mut options) = match policy {
        "None" => (Vec::new(), Vec::new(), Vec::new()),
        "Default" => of_host(),
        // With the host's network the cluster's address is not there.
        _ if pod.spec.host_network => of_host(),
        _ => {
            let cluster = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            let searches = cluster.into_iter().chain(words("search"));
            (vec![dns.to_owned()], searches.collect(), vec!["ndots:5".to_owned()])
        }
    };
    let DnsConfig { nameservers, searches: more_searches, options: more_options } = &pod.spec.dns_config;
    servers.extend(nameservers.iter().cloned());
    searches.extend(more_searches.iter().cloned());
    for option in more_options {
        let text = match &option.value {
            Some(value) => format!("{}:{value}", option.name),
            None => option.name.clone(),
        };
        options.retain(|known| known.split(':').next() != Some(option.name.as_str()));
        options.push(text);
    }
    let mut seen = Vec::new();
    searches.retain(|search| {
        !seen.contains(search) && {
            seen.push(search.clone());
            true
        }
    });
    searches.truncate(SEARCHES_MAX);
    let mut out = String::new();
    if !searches.is_empty() {
        out += &format!("search {}\n", searches.join(" "));
    }
    for server in servers.iter().take(NAMESERVERS_MAX) {
        out += &format!("nameserver {server}\n");
    }
    if !options.is_empty() {
        out += &format!("options {}\n", options.join(" "));
    }
    out
}

/// The pod's `/etc/hosts`. `host` is the host's, and counts for pods with its network.
pub fn hosts(pod: &Pod, pod_ip: &str, domain: &str, host: &str) -> String {
    let mut out = if pod.spec.host_network {
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let name = host_name(&pod.spec, &pod.metadata.name);
        let full = match pod.spec.subdomain.as_str() {
            "" => name,
            subdomain => format!("{name}.{subdomain}.{}.svc.{domain}\t{name}", pod.metadata.namespace),
        };
        format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n{pod_ip}\t{full}\n"
        )
    };
    if !pod.spec.host_aliases.is_empty() {
        out += "\n# Entries added by HostAliases.\n";
        for alias in &pod.spec.host_aliases {
            out += &format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t"));
        }
    }
    out
}

/// The pod's host name: its name, as far as a host name can be that long.
pub fn host_name(spec: &PodSpec, name: &str) -> String {
    const HOST_NAME_BYTES_MAX: usize = 63;
    let name = if spec.hostname.is_empty() { name } else { &spec.hostname };
    let end = name.len().min(HOST_NAME_BYTES_MAX);
    name.get(..end).unwrap_or(name).trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, expected: &str) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})).unwrap();
        let host = "nameserver 192.0.2.1\nsearch lan\noptions edns0\n";
        assert_eq!(resolv_conf(&pod, "10.96.0.10", "cluster.local", host), expected);
    }

    #[test]
    fn resolvers() {
        check(
            json!({"dnsPolicy": "ClusterFirst"}),
            "search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n",
        );
        check(json!({"dnsPolicy": "Default"}), "search lan\nnameserver 192.0.2.1\noptions edns0\n");
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"], "searches": null}}),
            "nameserver 192.0.2.9\n",
        );
        check(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]}}),
            "search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:1 edns0\n",
        );
    }

    #[test]
    fn host_names() {
        let check = |name: &str, expected: &str| assert_eq!(host_name(&PodSpec::default(), name), expected);
        check("web-0", "web-0");
        check(&format!("{}-b", "a".repeat(62)), &"a".repeat(62));
    }
}
