//! The text of a refusal, read back into its parts. Judges nothing, and knows refusals of the authorizer only.

/// A refusal in parts: `User "U" cannot VERB resource "R" in API group "G" in the namespace "N"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forbidden {
    pub user: String,
    pub verb: String,
    /// `pods` or `pods/log`; empty where a path was refused.
    pub resource: String,
    /// Empty for the core group.
    pub group: String,
    /// Empty for the cluster scope.
    pub namespace: String,
    /// Empty where the request names no object.
    pub name: String,
    /// The refused path where it is no resource's.
    pub path: String,
    /// What the authorizer found wrong while it looked (`RBAC: role.rbac.authorization.k8s.io "x" not found`); mostly empty.
    pub reason: String,
}

impl Forbidden {
    /// Reads the message of a 403, with whatever a client put before it; `None` where it is a refusal of another kind
    /// (admission, for one).
    pub fn parse(message: &str) -> Option<Forbidden> {
        let (before, text) = message.split_once("User \"")?;
        let (user, rest) = unquote_rest(text)?;
        let (verb, rest) = rest.strip_prefix(" cannot ")?.split_once(' ')?;
        let mut refusal = Forbidden { user: plain(&user), verb: plain(verb), ..Forbidden::default() };
        let rest = if let Some(path) = rest.strip_prefix("path ") {
            let (path, rest) = unquote(path)?;
            refusal.path = plain(&path);
            rest
        } else {
            let (resource, rest) = unquote(rest.strip_prefix("resource ")?)?;
            let (group, rest) = unquote(rest.strip_prefix(" in API group ")?)?;
            refusal.resource = plain(&resource);
            refusal.group = plain(&group);
            refusal.name = name_before(before);
            match rest.strip_prefix(" in the namespace ") {
                Some(namespace) => {
                    let (namespace, rest) = unquote(namespace)?;
                    refusal.namespace = plain(&namespace);
                    rest
                }
                None => rest.strip_prefix(" at the cluster scope").unwrap_or(rest),
            }
        };
        let reason = rest.strip_prefix(": ").unwrap_or_default();
        refusal.reason = reason.lines().next().unwrap_or_default().to_string();
        Some(refusal)
    }

    /// The resource without its subresource: `pods` of `pods/log`.
    pub fn plural(&self) -> &str {
        self.resource.split_once('/').map_or(&self.resource, |(plural, _)| plural)
    }

    /// `log` of `pods/log`; empty where the resource itself was refused.
    pub fn subresource(&self) -> &str {
        self.resource.split_once('/').map_or("", |(_, subresource)| subresource)
    }

    /// The RBAC rule that would allow it, as one line of a `--allow` option or of a Role.
    pub fn missing_rule(&self) -> String {
        match (self.path.as_str(), self.group.as_str()) {
            ("", "") => format!("{} {}", self.verb, self.resource),
            ("", group) => format!("{} {}.{group}", self.verb, self.resource),
            (path, _) => format!("{} {path}", self.verb),
        }
    }
}

/// A Go `%q` text at the start, and what follows it.
pub fn unquote(text: &str) -> Option<(String, &str)> {
    unquote_rest(text.strip_prefix('"')?)
}

/// The same behind the opening quote.
fn unquote_rest(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => {
                let digits = match chars.next()?.1 {
                    'a' => Err('\x07'),
                    'b' => Err('\x08'),
                    'f' => Err('\x0c'),
                    'n' => Err('\n'),
                    'r' => Err('\r'),
                    't' => Err('\t'),
                    'v' => Err('\x0b'),
                    'x' => Ok(2),
                    'u' => Ok(4),
                    'U' => Ok(8),
                    other => Err(other),
                };
                out.push(match digits {
                    Err(plain) => plain,
                    Ok(digits) => {
                        let code = (0..digits).map_while(|_| chars.next()).map(|(_, c)| c).collect::<String>();
                        char::from_u32(u32::from_str_radix(&code, 16).ok()?)?
                    }
                });
            }
            c => out.push(c),
        }
    }
    None
}

/// The object's name in what stands before `User`: `pods "p" is forbidden: `.
fn name_before(before: &str) -> String {
    let head = before.trim_end().strip_suffix("is forbidden:").map(str::trim_end);
    let name = head.and_then(|head| head.strip_suffix('"')).and_then(|head| head.rsplit_once(" \""));
    let Some((_, name)) = name else { return String::new() };
    // Of a quoted name only the inside is left: its end is put back to read it.
    let quoted = format!("{name}\"");
    unquote_rest(&quoted).filter(|(_, rest)| rest.is_empty()).map(|(name, _)| name).unwrap_or_default()
}

/// Without the escapes that keep a browser from reading names as markup.
fn plain(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, want: &str) {
        let got = match Forbidden::parse(message) {
            None => "-".to_string(),
            Some(f) => {
                let Forbidden { user, verb, resource, group, namespace, name, path, reason } = f;
                [user, verb, resource, group, namespace, name, path, reason].join("|")
            }
        };
        assert_eq!(got, want, "{message}");
    }

    #[test]
    fn refusals_are_read_back() {
        check(
            r#"pods is forbidden: User "system:serviceaccount:a:b" cannot list resource "pods" in API group "" in the namespace "a""#,
            "system:serviceaccount:a:b|list|pods||a|||",
        );
        check(
            r#"deployments.apps "d" is forbidden: User "u" cannot patch resource "deployments/scale" in API group "apps" at the cluster scope"#,
            "u|patch|deployments/scale|apps||d||",
        );
        check(r#"forbidden: User "system:anonymous" cannot get path "/apis""#, "system:anonymous|get|||||/apis|");
        check(r#"pods "x" is forbidden: error looking up service account a/b: serviceaccount "b" not found"#, "-");
        check(
            r#"Error from server (Forbidden): error when creating "x.yaml": configmaps is forbidden: User "u" cannot create resource "configmaps" in API group "" in the namespace "n": RBAC: role.rbac.authorization.k8s.io "r" not found"#,
            r#"u|create|configmaps||n|||RBAC: role.rbac.authorization.k8s.io "r" not found"#,
        );
    }

    #[test]
    fn what_was_escaped_is_put_back() {
        check(
            r#"pods is forbidden: User "has \"quotes\" &amp; &lt;tags&gt;" cannot list resource "pods" in API group "" in the namespace "ns""#,
            r#"has "quotes" & <tags>|list|pods||ns|||"#,
        );
        check(
            r#"Error from server (Forbidden): pods "a\u00a0b\"c" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "ns""#,
            "u|get|pods||ns|a\u{a0}b\"c||",
        );
        check(r#"forbidden: User "u" cannot get path "/a&amp;b&lt;c&gt;""#, "u|get|||||/a&b<c>|");
        assert_eq!(unquote(r#""\x41\n" rest"#), Some(("A\n".to_string(), " rest")));
        assert_eq!(unquote(r#""no end"#), None);
        assert_eq!(unquote(r#""\xzz""#), None);
    }
}
