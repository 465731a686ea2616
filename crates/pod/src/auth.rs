//! `kemudi auth can-i`: ask what you may do. `kemudi auth whoami` is [`crate::whoami`].

use clap::{Args, Subcommand};
use http::Method;
use kemudi_client::client::request;
use kemudi_client::discovery::Discovery;
use kemudi_client::{Client, Error};
use serde_json::{Value, json};

use crate::table::Table;
use crate::{Failure, Global, Outcome, print};

#[derive(Args, Debug)]
pub struct Auth {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Ask whether you may do something: VERB TYPE[/NAME] or VERB /PATH; exit code 1 where not
    #[command(name = "can-i")]
    CanI(CanI),
    /// Show who the server takes you for
    Whoami(crate::whoami::Whoami),
}

#[derive(Args, Debug)]
pub struct CanI {
    /// VERB TYPE[/NAME] or VERB /PATH
    #[arg(value_name = "VERB", required_unless_present = "list")]
    words: Vec<String>,
    /// List all you may do in the namespace
    #[arg(long)]
    list: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Subresource: log, exec, status
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
    /// Answer with the exit code only
    #[arg(short, long)]
    quiet: bool,
    /// Print no column names
    #[arg(long)]
    no_headers: bool,
}

impl Auth {
    pub async fn run(self, global: &Global) -> Outcome {
        match self.what {
            What::CanI(can_i) => can_i.run(global).await,
            What::Whoami(whoami) => whoami.run(global).await,
        }
    }
}

impl CanI {
    pub async fn run(self, global: &Global) -> Outcome {
        let client = global.client()?;
        match self.list {
            true => self.list(&client).await,
            false => self.ask(&client).await,
        }
    }

    async fn ask(&self, client: &Client) -> Outcome {
        let [verb, what, names @ ..] = self.words.as_slice() else {
            return Err(Failure::new("you must specify two arguments: verb resource or verb resource/resourceName.")
                .hint(format!("{} auth can-i list pods", crate::program())));
        };
        let spec = match what.starts_with('/') {
            true => json!({"nonResourceAttributes": {"verb": verb, "path": what}}),
            false => json!({"resourceAttributes": self.attributes(client, verb, what, names).await?}),
        };
        let allowed = allowed(client, spec).await?;
        if !self.quiet {
            let reason = allowed.1.filter(|_| !allowed.0).map(|reason| format!(" - {reason}")).unwrap_or_default();
            print(format!("{}{reason}\n", if allowed.0 { "yes" } else { "no" }))?;
        }
        if allowed.0 { Ok(()) } else { Err(Failure::silent(1)) }
    }

    async fn attributes(&self, client: &Client, verb: &str, what: &str, names: &[String]) -> Outcome<Value> {
        let (word, name) = what.split_once('/').unwrap_or((what, names.first().map_or("", String::as_str)));
        let mut namespace = if self.all_namespaces { "" } else { client.default_namespace() };
        let (group, resource) = match word {
            "*" => ("*".to_string(), "*".to_string()),
            word => match Discovery::fetch(client).await?.find(word) {
                Some(found) => {
                    if !found.resource.namespaced && !self.all_namespaces {
                        self.warn(&format!("resource '{}' is not namespace scoped", warned_name(found)));
                        namespace = "";
                    }
                    (found.resource.group.to_string(), found.resource.plural.to_string())
                }
                None => {
                    self.warn(&format!("the server doesn't have a resource type '{word}'"));
                    let (resource, group) = word.split_once('.').unwrap_or((word, ""));
                    (group.to_string(), resource.to_string())
                }
            },
        };
        let mut attributes = json!({"namespace": namespace, "verb": verb, "group": group, "resource": resource});
        if let Some(subresource) = &self.subresource {
            attributes["subresource"] = subresource.as_str().into();
        }
        if !name.is_empty() {
            attributes["name"] = name.into();
        }
        Ok(attributes)
    }

    fn warn(&self, text: &str) {
        if !self.quiet {
            eprintln!("Warning: {text}\n");
        }
    }

    async fn list(&self, client: &Client) -> Outcome {
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": client.default_namespace()},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let review: Value = client.json(request(Method::POST, path, Some(api::codec::to_json(&body).into()))?).await?;
        let status = &review["status"];
        if status["incomplete"] == true {
            let why = status["evaluationError"].as_str().unwrap_or_default();
            eprintln!("Warning: the list may be incomplete: {why}");
        }
        let mut table = Table::default();
        if !self.no_headers {
            table.row(["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]);
        }
        for row in rows(status) {
            table.row(row);
        }
        print(table.take())
    }
}

/// Whether a review allows it, and what the server says about that.
pub async fn allowed(client: &Client, spec: Value) -> Result<(bool, Option<String>), Error> {
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review: Value = client.json(request(Method::POST, path, Some(api::codec::to_json(&body).into()))?).await?;
    let status = &review["status"];
    let said = ["reason", "evaluationError"].iter().filter_map(|field| status[*field].as_str());
    let said: Vec<&str> = said.filter(|text| !text.is_empty()).collect();
    Ok((status["allowed"] == true, Some(said.join(" - ")).filter(|said| !said.is_empty())))
}

/// A rule for one resource or path, as kubectl compacts and orders them.
#[derive(Debug, PartialEq)]
struct Rule {
    group: String,
    resource: String,
    names: Vec<String>,
    path: String,
    verbs: Vec<String>,
}

fn rows(status: &Value) -> Vec<[String; 4]> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_string)).collect()
    };
    let mut rules: Vec<Rule> = Vec::new();
    let mut add = |new: Rule| {
        let same = |rule: &&mut Rule| {
            (&rule.group, &rule.resource, &rule.names, &rule.path) == (&new.group, &new.resource, &new.names, &new.path)
        };
        match rules.iter_mut().find(same) {
            Some(rule) => {
                for verb in new.verbs {
                    if !rule.verbs.contains(&verb) {
                        rule.verbs.push(verb);
                    }
                }
            }
            None => rules.push(new),
        }
    };
    for rule in status["resourceRules"].as_array().into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let (names, verbs) = (texts(&rule["resourceNames"]), texts(&rule["verbs"]));
                add(Rule { group: group.clone(), resource, names, path: String::new(), verbs });
            }
        }
    }
    for rule in status["nonResourceRules"].as_array().into_iter().flatten() {
        // Rules of paths are told as often as they were given.
        rules.extend(texts(&rule["nonResourceURLs"]).into_iter().map(|path| Rule {
            group: String::new(),
            resource: String::new(),
            names: Vec::new(),
            path,
            verbs: texts(&rule["verbs"]),
        }));
    }
    rules.sort_by_key(Rule::order);
    rules.iter().map(Rule::row).collect()
}

impl Rule {
    /// Go's `PolicyRule.String()`, which is what kubectl sorts by.
    fn order(&self) -> String {
        format!(
            "Verbs:[{}],APIGroups:[{}],Resources:[{}],ResourceNames:[{}],NonResourceURLs:[{}],",
            self.verbs.join(" "),
            self.group,
            self.resource,
            self.names.join(" "),
            self.path
        )
    }

    fn row(&self) -> [String; 4] {
        let resource = match (self.group.as_str(), self.resource.split_once('/')) {
            ("", _) => self.resource.clone(),
            (group, Some((resource, sub))) => format!("{resource}.{group}/{sub}"),
            (group, None) => format!("{}.{group}", self.resource),
        };
        let list = |texts: &[String]| format!("[{}]", texts.join(" "));
        [resource, format!("[{}]", self.path), list(&self.names), list(&self.verbs)]
    }
}

fn warned_name(found: &kemudi_client::discovery::Discovered) -> String {
    match &*found.resource.group {
        "" => found.resource.plural.to_string(),
        group => format!("{}' in group '{group}", found.resource.plural),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_compacted_and_ordered() {
        let status = json!({
            "resourceRules": [
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["list", "get"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["get", "list", "watch"], "apiGroups": ["apps"], "resources": ["deployments/scale"]},
                {"verbs": ["create"], "apiGroups": ["a"], "resources": ["x"], "resourceNames": ["n"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/api"]}]});
        let text: Vec<String> = rows(&status).iter().map(|row| row.join("|")).collect();
        assert_eq!(
            text,
            [
                "x.a|[]|[n]|[create]",
                "deployments.apps/scale|[]|[]|[get list watch]",
                "pods|[]|[]|[get list]",
                "|[/api]|[]|[get]"
            ]
        );
    }
}
