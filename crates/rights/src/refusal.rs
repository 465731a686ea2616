//! What the text of a 401 or 403 says, whoever wrote it: the authorizer, the check for escalation, admission. Reads texts only.

use api::refusal::{Forbidden, unquote};

use crate::asked::Asked;
use crate::rule::Rule;

/// A refusal by who refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The authorizer: nobody allows it. With what it found wrong, mostly `""`.
    Rights { asked: Asked, reason: String },
    /// Whoever writes a role or binding may hand out only what they hold themselves.
    Escalation { user: String, groups: Vec<String>, rules: Vec<Rule> },
    /// Something behind the authorizer (admission, a quota): no right would change it. With its text.
    Admission(String),
    /// The server does not know who asks.
    Unauthorized,
}

impl Refusal {
    /// Reads the message of a Status, or the line that a client made of it; `None` where it is no refusal.
    pub fn read(text: &str) -> Option<Refusal> {
        const GRANTS: &str = " is attempting to grant RBAC permissions not currently held:";
        if let Some(forbidden) = Forbidden::parse(text) {
            let reason = forbidden.reason.clone();
            return Some(Refusal::Rights { asked: Asked::of_refusal(forbidden), reason });
        }
        if let Some((who, rules)) = text.split_once(GRANTS) {
            let (user, rest) = unquote(who.split_once("user ")?.1)?;
            let groups = texts(rest.trim().strip_prefix("(groups=[")?);
            let rules = rules.split("; resolution errors:").next().unwrap_or_default();
            let rules = rules.lines().filter_map(Rule::parse).collect();
            return Some(Refusal::Escalation { user, groups, rules });
        }
        if let Some((_, why)) = text.split_once("is forbidden: ") {
            return Some(Refusal::Admission(why.trim().to_string()));
        }
        let word = |wanted: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == wanted);
        (word("Unauthorized") || word("401")).then_some(Refusal::Unauthorized)
    }
}

/// The texts of `"a" "b"])` up to what is none.
fn texts(mut rest: &str) -> Vec<String> {
    let mut out = Vec::new();
    while let Some((text, after)) = unquote(rest.trim_start()) {
        out.push(text);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let escalation = "Error from server (Forbidden): error when creating \"STDIN\": roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"u\" (groups=[\"g\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/m\"], Verbs:[\"get\"]}";
        let Some(Refusal::Escalation { user, groups, rules }) = Refusal::read(escalation) else { panic!("read") };
        assert_eq!((user.as_str(), groups.len(), rules.len()), ("u", 2, 2));
        let admission = r#"pods "x" is forbidden: error looking up service account a/b: serviceaccount "b" not found"#;
        let want = r#"error looking up service account a/b: serviceaccount "b" not found"#;
        assert_eq!(Refusal::read(admission), Some(Refusal::Admission(want.into())));
        let login = "error: You must be logged in to the server (Unauthorized)";
        assert_eq!(Refusal::read(login), Some(Refusal::Unauthorized));
        assert_eq!(Refusal::read("pods \"x\" not found"), None);
    }
}
