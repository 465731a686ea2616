//! What an account uses, recorded by the server while something goes on; and what is made of it: the least Role and RoleBinding,
//! or how Roles differ from it. `record` and `run --record` share it. Only kemudi's own server records.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use http::Method;
use kemudi_client::client::request;
use kemudi_client::{Client, Error};
use rights::{Difference, Recorded, Subject, Usage};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Failure, Outcome, print};

const PATH: &str = "/explain/usage";
/// How often a recording is asked for in the time that it lasts without being asked for.
const ASKS_PER_LEASE: u32 = 3;
/// How long the server may take to give what it recorded.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// A recording that goes on.
pub struct Recording {
    client: Client,
    begun: Begun,
    so_far: Recorded,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    recording: String,
    user: String,
    lease_seconds: u64,
}

impl Recording {
    /// From now on the server writes down what this user asks for.
    ///
    /// # Errors
    /// That this server does not record, or not for us, and what to do instead.
    pub async fn begin(client: &Client, user: &str) -> Outcome<Recording> {
        let begun = begin(client, user).await.map_err(refused)?;
        Ok(Recording { client: client.clone(), begun, so_far: Recorded::default() })
    }

    /// Does something, and keeps the recording alive meanwhile.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let keep = async {
            loop {
                let pause = Duration::from_secs(self.begun.lease_seconds.max(1)) / ASKS_PER_LEASE;
                tokio::time::sleep(pause).await;
                self.ask(Method::GET).await;
            }
        };
        tokio::select! {
            done = work => done,
            () = keep => unreachable!("it has no end"),
        }
    }

    /// Ends it, and gives all that was used.
    pub async fn end(mut self) -> Recorded {
        if tokio::time::timeout(END_TIME_MAX, self.ask(Method::DELETE)).await.is_err() {
            self.incomplete("the server does not answer");
        }
        self.so_far
    }

    /// Asks for what there is so far. A server that has forgotten the recording begins another.
    async fn ask(&mut self, method: Method) {
        let path = target("recording", &self.begun.recording);
        let is_last = method == Method::DELETE;
        match call(&self.client, method, &path).await {
            Ok(more) => self.so_far.add(more),
            Err(error) if error.is_not_found() && !is_last => {
                self.incomplete("the server has forgotten the recording, as it does when it starts anew");
                if let Ok(begun) = begin(&self.client, &self.begun.user).await {
                    self.begun = begun;
                }
            }
            // The next time may be better, and the last time tells of it.
            Err(error) if !is_last => tracing::debug!(%error, "the recording could not be asked for"),
            Err(error) => self.incomplete(&error.to_string()),
        }
    }

    fn incomplete(&mut self, why: &str) {
        eprintln!("warning: what was used is not all there: {why}");
    }
}

async fn begin(client: &Client, user: &str) -> Result<Begun, Error> {
    call(client, Method::POST, &target("user", user)).await
}

fn target(name: &str, value: &str) -> String {
    format!("{PATH}?{}", api::Query(vec![(name.into(), value.into())]).print())
}

async fn call<T: DeserializeOwned>(client: &Client, method: Method, path: &str) -> Result<T, Error> {
    client.json(request(method, path, None)?).await
}

/// What to do where a recording cannot begin.
fn refused(error: Error) -> Failure {
    const INSTEAD: &str =
        "record the program in a cluster of its own: kemudi record -- COMMAND; or read the server's audit log";
    match error.code() {
        Some(404 | 405) => Failure::new("this server cannot record what an account uses: only kemudi's own does").hint(INSTEAD),
        Some(403) => Failure::from(error).hint(format!(
            "who may list roles, rolebindings, clusterroles and clusterrolebindings in all namespaces may record on kemudi's own \
             server; no other server can. Or {INSTEAD}"
        )),
        _ => error.into(),
    }
}

/// What is made of what was recorded.
pub struct Roles<'a> {
    /// The name of the roles.
    pub name: &'a str,
    /// Who is given them: `NAMESPACE` and `NAME` of an account.
    pub account: (&'a str, &'a str),
    /// What was refused is in them too.
    pub with_refused: bool,
}

impl Roles<'_> {
    /// Tells people what was used and what was refused.
    pub fn tell(&self, recorded: &Recorded) {
        let (used, refused): (Vec<Usage>, Vec<Usage>) = match self.with_refused {
            true => (recorded.usages.iter().cloned().collect(), Vec::new()),
            false => (recorded.usages.iter().filter(|usage| usage.allowed).cloned().collect(), recorded.refused()),
        };
        match used.is_empty() {
            true => eprintln!("nothing was {} of the API server", if refused.is_empty() { "asked" } else { "had" }),
            false => eprint!("{}", table(&used)),
        }
        if !refused.is_empty() {
            eprint!("refused, not in the Role (--with-refused takes it in):\n{}", table(&refused));
        }
        if recorded.full {
            eprintln!("warning: what was used is not all there: it was more than the server keeps of one recording");
        }
    }

    /// The Roles with their RoleBindings, as YAML documents.
    pub fn documents(&self, recorded: &Recorded) -> String {
        let subject = Subject::of_user(&rights::user_of(self.account.0, self.account.1));
        let roles = recorded.least_roles(self.name, self.with_refused);
        let objects = roles.into_iter().flat_map(|role| {
            let binding = rights::binding_of(&role, &subject);
            [role, binding]
        });
        let documents: Vec<String> =
            objects.map(|object| api::codec::to_yaml(&object).trim_end().to_string()).collect();
        if documents.is_empty() { String::new() } else { format!("{}\n", documents.join("\n---\n")) }
    }

    /// Writes them to a file, or to stdout.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, recorded: &Recorded, file: Option<&Path>) -> Outcome {
        let text = self.documents(recorded);
        match file {
            Some(path) => std::fs::write(path, text)
                .map_err(|why| Failure::new(format!("cannot write {}: {why}", path.display()))),
            None => {
                let _ = std::io::stdout().write_all(text.as_bytes());
                Ok(())
            }
        }
    }

    /// Says how what was granted and what was used differ.
    ///
    /// # Errors
    /// They do.
    pub fn compare(&self, recorded: &Recorded, granted: &[Value]) -> Outcome {
        let difference = Difference::of(granted, &recorded.least_roles(self.name, self.with_refused), self.account.0);
        if difference.is_empty() {
            return Ok(());
        }
        for (what, rights) in
            [("used and not granted", &difference.missing), ("granted and not used", &difference.unused)]
        {
            if !rights.is_empty() {
                let lines: String = rights.iter().map(|right| format!("  {right}\n")).collect();
                print(format!("{what}:\n{lines}"))?;
            }
        }
        let hint = "to write the least Role instead: the same command without --check; whole words as *, and all names where \
                    one was used, are more than was used";
        Err(Failure::new("what is granted is not what was used").hint(hint))
    }
}

/// The Roles and ClusterRoles of a file.
///
/// # Errors
/// It cannot be read, or there is none in it.
pub fn read_roles(path: &Path) -> Result<Vec<Value>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|why| format!("{shown}: {why}"))?;
    let documents = api::codec::from_yaml_stream(&text).map_err(|why| format!("{shown}: {why}"))?;
    let roles: Vec<Value> =
        documents.into_iter().filter(|d| d["kind"] == "Role" || d["kind"] == "ClusterRole").collect();
    match roles.is_empty() {
        true => Err(format!("{shown}: there is no Role or ClusterRole in it")),
        false => Ok(roles),
    }
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

#[cfg(test)]
mod tests {
    use api::{Reason, Status};

    use super::*;

    #[track_caller]
    fn check(code: u16, message: &str, hint: &str) {
        let failure = refused(Status::failure(code, Reason::Unknown, "no").into());
        assert!(failure.message.contains(message), "{}", failure.message);
        assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{:?}", failure.hint);
    }

    #[test]
    fn a_server_that_does_not_record_is_told_of() {
        check(404, "this server cannot record", "audit log");
        check(405, "this server cannot record", "kemudi record -- COMMAND");
        check(403, "no", "no other server can");
        check(500, "no", "");
    }
}
