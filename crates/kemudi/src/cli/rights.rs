//! Rights as a command line gives them: `--allow 'get,list pods'` and files of Roles. From words to Role objects.

use std::path::PathBuf;

use kemudi_client::Client;
use kemudi_client::discovery::Discovery;
use pod::recording::read_roles;
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// What a program may do.
pub struct Rights {
    allow: Vec<Allow>,
    roles: Vec<Value>,
    everywhere: bool,
}

/// One `--allow`.
#[derive(Clone, Debug, PartialEq)]
struct Allow {
    verbs: Vec<String>,
    /// As typed: `pods`, `deployments.apps`, `pods/log`, `*`, `/healthz`.
    resources: Vec<String>,
    names: Vec<String>,
}

/// A role to be made and bound.
pub struct Role {
    name: String,
    cluster: bool,
    rules: Vec<Value>,
}

impl Rights {
    /// Everything, everywhere.
    pub fn all() -> Rights {
        let star = || vec!["*".to_string()];
        let allow = [star(), vec!["/*".to_string()]];
        let allow = allow.into_iter().map(|resources| Allow { verbs: star(), resources, names: Vec::new() });
        Rights { allow: allow.collect(), roles: Vec::new(), everywhere: true }
    }

    /// Reads the flags; nothing is asked of a server yet.
    ///
    /// # Errors
    /// What is wrong with which flag or file, and how it should look.
    pub fn read(allow: &[String], roles: &[PathBuf], everywhere: bool) -> Result<Rights, String> {
        let allow = allow.iter().map(|text| Allow::parse(text)).collect::<Result<_, _>>()?;
        let mut found = Vec::new();
        for path in roles {
            found.extend(read_roles(path).map_err(|why| format!("--role {why}"))?);
        }
        Ok(Rights { allow, roles: found, everywhere })
    }

    /// The roles to make. `name` is for those that the flags describe; the namespace is where they hold.
    ///
    /// # Errors
    /// A resource that the server does not have.
    pub async fn roles(&self, client: &Client, name: &str, namespace: &str) -> Result<Vec<Role>, String> {
        let _ = namespace;
        let (mut here, mut everywhere) = (Vec::new(), Vec::new());
        if !self.allow.is_empty() {
            for allow in &self.allow {
                for (rule, cluster) in allow.rules(client).await? {
                    if cluster || self.everywhere { &mut everywhere } else { &mut here }.push(rule);
                }
            }
        }
        let mut roles = Vec::new();
        for (cluster, rules) in [(false, here), (true, everywhere)] {
            if !rules.is_empty() {
                roles.push(Role { name: name.to_string(), cluster, rules });
            }
        }
        for (i, role) in self.roles.iter().enumerate() {
            roles.push(Role {
                name: format!("{name}-{}", role["metadata"]["name"].as_str().unwrap_or(&i.to_string())),
                cluster: role["kind"] == "ClusterRole",
                rules: role["rules"].as_array().cloned().unwrap_or_default(),
            });
        }
        Ok(roles)
    }
}

impl Role {
    /// The role and its binding to an account.
    pub fn objects(&self, account: &str, namespace: &str) -> [Value; 2] {
        let (role, binding) = match self.cluster {
            true => ("ClusterRole", "ClusterRoleBinding"),
            false => ("Role", "RoleBinding"),
        };
        [
            json!({"apiVersion": RBAC, "kind": role, "metadata": {"name": self.name}, "rules": self.rules}),
            json!({
                "apiVersion": RBAC,
                "kind": binding,
                "metadata": {"name": self.name},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": self.name},
            }),
        ]
    }
}

impl Allow {
    fn parse(text: &str) -> Result<Allow, String> {
        let list = |word: &str| word.split(',').filter(|w| !w.is_empty()).map(str::to_string).collect::<Vec<_>>();
        let words: Vec<&str> = text.split_whitespace().collect();
        let (verbs, resources, names) = match words.as_slice() {
            [verbs, resources] => (list(verbs), list(resources), Vec::new()),
            [verbs, resources, names] => (list(verbs), list(resources), list(names)),
            _ => {
                return Err(format!(
                    "--allow {text:?}: it takes verbs and resources, such as 'get,list pods' or 'get secrets one,two'"
                ));
            }
        };
        Ok(Allow { verbs, resources, names })
    }

    /// A rule per API group, and whether it needs a ClusterRole.
    async fn rules(&self, client: &Client) -> Result<Vec<(Value, bool)>, String> {
        let (paths, resources): (Vec<&String>, Vec<&String>) = self.resources.iter().partition(|r| r.starts_with('/'));
        let mut rules = Vec::new();
        if !paths.is_empty() {
            rules.push((json!({"nonResourceURLs": paths, "verbs": self.verbs}), true));
        }
        let mut groups: Vec<(String, bool, Vec<String>)> = Vec::new();
        for word in resources {
            let (base, sub) = word.split_once('/').map_or((word.as_str(), ""), |(base, sub)| (base, sub));
            let (group, plural, namespaced) = match base {
                "*" => ("*".to_string(), "*".to_string(), true),
                _ => find(client, base).await?,
            };
            let resource = if sub.is_empty() { plural } else { format!("{plural}/{sub}") };
            match groups.iter_mut().find(|(g, n, _)| *g == group && *n == namespaced) {
                Some((_, _, all)) => all.push(resource),
                None => groups.push((group, namespaced, vec![resource])),
            }
        }
        for (group, namespaced, resources) in groups {
            let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": self.verbs});
            if !self.names.is_empty() {
                rule["resourceNames"] = json!(self.names);
            }
            rules.push((rule, !namespaced));
        }
        Ok(rules)
    }
}

/// Group, plural and scope of a resource. Built-in ones are known here; of others the server is asked.
async fn find(client: &Client, word: &str) -> Result<(String, String, bool), String> {
    if let Some(kind) = kinds::builtin().find(word) {
        return Ok((kind.group.to_string(), kind.plural.to_string(), kind.namespaced));
    }
    let discovery = Discovery::fetch(client).await.map_err(|why| format!("--allow: {why}"))?;
    let found = super::resolve::resolve(&discovery, word).map_err(|why| format!("--allow: {why}"))?;
    Ok((found.resource.group.to_string(), found.resource.plural.to_string(), found.resource.namespaced))
}

/// Five letters for a name that nothing else has.
pub fn random_letters() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = [0; 5];
    // A machine without randomness cannot make keys either; a fixed word at least fails with a clear conflict.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|b| LETTERS[*b as usize % LETTERS.len()] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read() {
        let allow = Allow::parse("get,list pods,pods/log one").unwrap();
        assert_eq!((allow.verbs.len(), allow.resources.len(), allow.names.len()), (2, 2, 1));
        assert!(Allow::parse("pods").unwrap_err().contains("it takes verbs and resources"));
    }
}
