//! `kemudi record`: runs a command in a pod that may do everything in a cluster of its own, and writes the least Role and
//! RoleBinding that it needed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use rights::{Difference, Subject, Usage};
use serde_json::Value;

use super::rights::{Rights, read_roles};
use super::run::{Place, Program, finish};
use super::{Failure, Global, Outcome, print};

/// The account that the written binding names.
const ACCOUNT: &str = "default";

#[derive(Args, Debug)]
#[command(after_help = "\
The command runs in a fresh cluster in memory, where it may do everything. What it asked for is written down; nothing
is taken from any other cluster.

Examples:
  kemudi record -- python3 app.py                  the Role on stdout once the command has ended
  kemudi record -o role.yaml -- ./app              into a file, to apply: kubectl apply -f role.yaml
  kemudi run --role role.yaml -- ./app             the command again, with just these rights
  kemudi record --check role.yaml -- ./app         exit code 1 where the Role and what was used differ, in either direction")]
pub struct Record {
    /// File to write to instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// File of Roles that should allow just what is used, instead of writing one; may be repeated. A difference is exit code 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "name"])]
    pub check: Vec<PathBuf>,
    /// Name of the roles
    #[arg(long, value_name = "NAME", default_value = "recorded")]
    pub name: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Record {
    pub async fn run(self, global: &Global) -> Outcome {
        let namespace = global.namespace.clone().unwrap_or_else(|| "default".into());
        let mut granted = Vec::new();
        for path in &self.check {
            granted.extend(read_roles(path).map_err(|why| Failure::new(format!("--check {why}")))?);
        }
        let place = Place::own().await?;
        let Some(cluster) = place.cluster() else { return Err(Failure::new("recording needs a cluster of its own")) };
        let state = cluster.server().state().clone();
        state.usage.start();
        let program = Program {
            namespace: namespace.clone(),
            rights: Rights::all(),
            service_account: None,
            image: None,
            command: self.command.clone(),
        };
        let (outcome, name) = program.run_named(&place).await;
        let user = server::authn::service_account::user_name(&namespace, &name);
        let used = state.usage.of(&user);
        place.leave().await;
        let exit = outcome?;
        let subject = Subject::of_user(&rights::user_of(&namespace, ACCOUNT));
        let roles = rights::least_roles(&used, &self.name, &[&name]);
        if !self.check.is_empty() {
            eprint!("{}", table(&used));
            return finish(exit).and_then(|()| compared(&Difference::of(&granted, &roles, &namespace)));
        }
        let mut documents: Vec<Value> = Vec::new();
        for role in roles {
            let binding = rights::binding_of(&role, &subject);
            documents.extend([role, binding]);
        }
        let documents: Vec<String> = documents.iter().map(|d| api::codec::to_yaml(d).trim_end().to_string()).collect();
        let text = format!("{}\n", documents.join("\n---\n"));
        eprint!("{}", table(&used));
        match &self.output {
            Some(path) => std::fs::write(path, text)
                .map_err(|why| Failure::new(format!("cannot write {}: {why}", path.display())))?,
            None => {
                let _ = std::io::stdout().write_all(text.as_bytes());
            }
        }
        finish(exit)
    }
}

/// Prints how what was granted and what was used differ, where they do.
fn compared(difference: &Difference) -> Outcome {
    if difference.is_empty() {
        return Ok(());
    }
    for (what, rights) in [("used and not granted", &difference.missing), ("granted and not used", &difference.unused)]
    {
        if !rights.is_empty() {
            let lines: String = rights.iter().map(|right| format!("  {right}\n")).collect();
            print(format!("{what}:\n{lines}"))?;
        }
    }
    let hint = "to write the least Role instead: the same command without --check; whole words as *, and all names where one \
                was used, are more than was used";
    Err(Failure::new("what is granted is not what was used").hint(hint))
}

/// What was used, for people: a line a resource.
fn table(used: &[Usage]) -> String {
    let mut lines: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for usage in used {
        let what = match (usage.resource.as_str(), usage.group.as_str()) {
            ("", _) => usage.path.clone(),
            (resource, "") => resource.to_string(),
            (resource, group) => format!("{resource}.{group}"),
        };
        let verbs = lines.entry((&usage.namespace, what)).or_default();
        if !verbs.contains(&usage.verb.as_str()) {
            verbs.push(&usage.verb);
        }
    }
    if lines.is_empty() {
        return "the command asked the API server for nothing\n".into();
    }
    let shown = |namespace: &str| if namespace.is_empty() { "-".to_string() } else { namespace.to_string() };
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let first = widest(&mut lines.keys().map(|(namespace, _)| shown(namespace).len())).max("NAMESPACE".len());
    let second = widest(&mut lines.keys().map(|(_, what)| what.len())).max("RESOURCE".len());
    let mut out = format!("{:first$}  {:second$}  VERBS\n", "NAMESPACE", "RESOURCE");
    for ((namespace, what), verbs) in &lines {
        out += &format!("{:first$}  {what:second$}  {}\n", shown(namespace), verbs.join(","));
    }
    out
}
