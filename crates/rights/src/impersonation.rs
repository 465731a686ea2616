//! Constrained impersonation takes two rights, for what is done and for whom it is done as, and a refusal tells of one of them:
//! from that one to both. Pure.

use crate::asked::Asked;
use crate::explain::{Cause, Finding, Known};
use crate::ways;

const GROUP: &str = "authentication.k8s.io";

/// What a refusal of constrained impersonation leaves out; `None` for every other, and where the rest is held for everybody.
pub(crate) fn other_half(asked: &Asked, known: &Known) -> Option<Finding> {
    let on = asked.verb.strip_prefix("impersonate-on:").and_then(|rest| rest.rsplit_once(':'));
    let (message, repair) = match (on, asked.verb.strip_prefix("impersonate:")) {
        (Some((mode, _)), _) => whom(asked, mode, known)?,
        (None, Some(mode)) => (
            format!(
                "acting as somebody takes two rights: {} {}, who it is done as, which was refused, and \
                 impersonate-on:{mode}:VERB of what is asked for, which is looked at first, so that it was there",
                asked.verb,
                asked.resource_and_subresource()
            ),
            "give it for each of user, groups, uid and extra that are named; or, for everything at once, the verb impersonate"
                .to_string(),
        ),
        _ => return None,
    };
    Some(Finding::new(Cause::ImpersonationTakesTwo, message, repair))
}

/// The right to act as somebody, where what was refused is what is done in that name: by the name of whom. `None` for every other
/// refusal.
pub fn to_act_as(refused: &Asked, whom: &str) -> Option<Asked> {
    let (mode, _) = refused.verb.strip_prefix("impersonate-on:")?.rsplit_once(':')?;
    if whom.is_empty() {
        return None;
    }
    let (resource, namespace, name) = match (resource_of(mode), crate::account_of(whom)) {
        ("nodes", _) if mode == "associated-node" => ("nodes", "", "*"),
        ("nodes", _) => ("nodes", "", whom.strip_prefix("system:node:")?),
        ("serviceaccounts", Some((namespace, name))) => ("serviceaccounts", namespace, name),
        (resource, _) => (resource, "", whom),
    };
    let asked = Asked {
        verb: format!("impersonate:{mode}"),
        group: GROUP.into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Asked::default()
    };
    Some(asked.by(&refused.user, refused.groups.clone()))
}

/// What people of a kind are, as a resource.
fn resource_of(mode: &str) -> &'static str {
    match mode {
        "associated-node" | "arbitrary-node" => "nodes",
        "serviceaccount" => "serviceaccounts",
        _ => "users",
    }
}

/// The right that is looked at after the one for what is done.
fn whom(asked: &Asked, mode: &str, known: &Known) -> Option<(String, String)> {
    let resource = resource_of(mode);
    let verb = format!("impersonate:{mode}");
    let everybody = Asked { verb: verb.clone(), group: GROUP.into(), resource: resource.into(), ..Asked::default() };
    if ways::allowed_by(&everybody.by(&asked.user, asked.groups.clone()), known).is_some() {
        return None;
    }
    let message = format!(
        "acting as somebody takes two rights: {} {}, what is done, which was refused, and {verb} {resource}.{GROUP}, who it is \
         done as, which is looked at next",
        asked.verb,
        if asked.is_path() { asked.path.clone() } else { asked.resource_and_subresource() },
    );
    let create = match resource {
        "serviceaccounts" => "kubectl create role NAME -n ITS_NAMESPACE",
        _ => "kubectl create clusterrole NAME",
    };
    let more = match resource {
        "users" => "; the same on groups, uids and userextras/KEY where those are named",
        _ => "",
    };
    let repair = format!(
        "{create} --verb={verb} --resource={resource}.{GROUP} --resource-name=WHOM, and a binding of it{more}; or, for everything \
         at once, the verb impersonate"
    );
    Some((message, repair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(verb: &str, whom: &str, want: &str) {
        let refused = Asked { user: "ann".into(), verb: verb.into(), ..Asked::default() };
        let got = to_act_as(&refused, whom).map(|asked| format!("{} {}", asked.user, asked.describe()));
        assert_eq!(got.unwrap_or_default(), want);
    }

    #[test]
    fn whom_it_is_done_as_is_a_right_of_its_own() {
        const GROUP: &str = "in API group authentication.k8s.io";
        let everywhere = "in the whole cluster";
        check(
            "impersonate-on:user-info:list",
            "bob",
            &format!("ann impersonate:user-info users {GROUP} \"bob\" {everywhere}"),
        );
        check(
            "impersonate-on:serviceaccount:get",
            "system:serviceaccount:a:robot",
            &format!("ann impersonate:serviceaccount serviceaccounts {GROUP} \"robot\" in namespace \"a\""),
        );
        check(
            "impersonate-on:arbitrary-node:get",
            "system:node:n",
            &format!("ann impersonate:arbitrary-node nodes {GROUP} \"n\" {everywhere}"),
        );
        check(
            "impersonate-on:associated-node:get",
            "system:node:n",
            &format!("ann impersonate:associated-node nodes {GROUP} \"*\" {everywhere}"),
        );
        check("impersonate-on:user-info:list", "", "");
        check("impersonate", "bob", "");
        check("list", "bob", "");
    }
}
