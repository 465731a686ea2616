//! What Windows alone has in a pod: users by name, credentials of groups, processes of the host. Knows nothing else of pods.

use serde_json::Value;

use super::annotations::containers;
use super::check::{self, Causes};
use super::read::Read;
use crate::Cause;
use crate::validate;

const SPEC_KIB_MAX: usize = 64;
const DOMAIN_CHARACTERS_MAX: usize = 256;
const USER_CHARACTERS_MAX: usize = 104;

/// `windowsOptions` of a pod or a container.
pub fn options(out: &mut Causes, options: &Value, path: &str) {
    let name = options.at("gmsaCredentialSpecName");
    if let Some(name) = name.as_str() {
        check::text(out, name, format_args!("{path}.gmsaCredentialSpecName"), validate::dns1123_subdomain);
    }
    let credentials = options.at("gmsaCredentialSpec");
    let field = format!("{path}.gmsaCredentialSpec");
    match credentials.as_str().map(str::len) {
        Some(0) => out.push(Cause::invalid(field, credentials, "gmsaCredentialSpec cannot be an empty string")),
        Some(length) if length > SPEC_KIB_MAX * 1024 => {
            let detail = format!("gmsaCredentialSpec size must be under {SPEC_KIB_MAX} KiB");
            out.push(Cause::invalid(field, credentials, &detail));
        }
        _ => {}
    }
    let user = options.at("runAsUserName");
    for detail in user.as_str().map(user_name).unwrap_or_default() {
        out.push(Cause::invalid(format!("{path}.runAsUserName"), user, &detail));
    }
}

/// What is wrong with `DOMAIN\user`.
fn user_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".into()];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".into()];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash".into()],
    };
    let mut out: Vec<String> = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_CHARACTERS_MAX) {
        out.push(format!("runAsUserName's Domain length must be under {DOMAIN_CHARACTERS_MAX} characters"));
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)) {
        out.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".into());
    }
    if user.is_empty() {
        out.push("runAsUserName's User cannot be empty".into());
    } else if user.len() > USER_CHARACTERS_MAX {
        out.push(format!("runAsUserName's User length must not be longer than {USER_CHARACTERS_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        out.push("runAsUserName's User cannot contain only periods or spaces".into());
    }
    if user.contains(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        out.push(r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.into());
    }
    out
}

fn is_net_bios(domain: &str) -> bool {
    let odd = |c: char| r#"\/:*?"<>|"#.contains(c);
    !domain.starts_with('.') && (1..=15).contains(&domain.chars().count()) && !domain.contains(odd)
}

fn is_dns(domain: &str) -> bool {
    let alnum = |c: char| c.is_ascii_alphanumeric();
    domain.split('.').all(|label| {
        label.len() <= 63
            && label.starts_with(alnum)
            && label.ends_with(alnum)
            && label.chars().all(|c| c == '-' || alnum(c))
    })
}

/// All containers are processes of the host, or none is.
pub fn host_processes(out: &mut Causes, spec: &Value, path: &str) {
    const FIELD: &str = "securityContext.windowsOptions.hostProcess";
    let own = spec.at(FIELD).as_bool();
    let (mut all, mut of_host) = (0, 0);
    for (at, container) in containers(spec) {
        all += 1;
        let its = container.at(FIELD).as_bool();
        if let (Some(own), Some(its)) = (own, its)
            && own != its
        {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {own}");
            out.push(Cause::invalid(format!("{path}.{at}.{FIELD}"), &its.into(), &detail));
        }
        of_host += usize::from(its.or(own) == Some(true));
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        out.push(Cause::invalid(path, &"".into(), detail));
    }
    if !spec.flag("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        out.push(Cause::invalid(format!("{path}.hostNetwork"), &false.into(), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_users() {
        let check = |name: &str, want: &str| assert_eq!(user_name(name).join(" & "), want, "{name:?}");
        check("ContainerAdministrator", "");
        check(r"CORP\ann", "");
        check(r"a\b\c", "runAsUserName cannot contain more than one backslash");
        check("..", "runAsUserName's User cannot contain only periods or spaces");
        check(
            r".x\",
            "runAsUserName's Domain doesn't match the NetBios nor the DNS format & runAsUserName's User cannot be empty",
        );
        check("a@b", r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#);
    }

    #[test]
    fn processes_of_the_host_are_all_or_none() {
        let mut out = Causes::new();
        let host = json!({"windowsOptions": {"hostProcess": true}});
        let spec = json!({"containers": [{"name": "a", "securityContext": host}, {"name": "b"}]});
        host_processes(&mut out, &spec, "spec");
        let texts: Vec<String> = out.iter().map(Cause::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers",
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
            ]
        );
    }
}
