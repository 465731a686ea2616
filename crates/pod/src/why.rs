//! `kemudi why`: from a refusal to its cause, and to the least Role and RoleBinding that would allow it. Asks with the
//! caller's own rights and says what they do not reach; changes nothing.

mod collect;
mod credentials;

use std::io::{IsTerminal, Read};

use api::Ask;
use clap::Args;
use kemudi_client::config::Impersonate;
use kemudi_client::discovery::Discovery;
use kemudi_client::{Client, Error};
use rights::{Asked, Cause, Explanation, Finding, Refusal, Rule};
use serde_json::Value;

use crate::output::{self, Format};
use crate::{Failure, Global, Outcome, print, program};

/// Longest text of a refusal that is read from stdin, in bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;

#[derive(Args, Debug)]
#[command(after_help = examples())]
pub struct Why {
    /// The text of a 401 or 403, a request line, or VERB TYPE[/SUBRESOURCE] [NAME]; - for stdin
    #[arg(value_name = "REFUSAL")]
    words: Vec<String>,
    /// The last request that the server refused; with --as, the last of that user
    #[arg(long, conflicts_with = "words")]
    last: bool,
    /// Print only what is to be applied
    #[arg(long)]
    fix: bool,
    /// json or yaml
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "fix")]
    output: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Subresource: log, exec, status
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
}

fn examples() -> String {
    format!(
        "\
Without words the refusal's text is read from stdin. It works with any Kubernetes:
it reads roles, bindings, accounts and namespaces as far as you may, asks the
server's own reviews, and names what it could not see.

Examples:
  a 403 as it was told:          kubectl get pods 2>&1 | {0} why
  a request, as somebody:        {0} why 'GET /api/v1/pods' --as ann
                                 {0} why get pods/log -n shop --as system:serviceaccount:shop:web
  what the server refused last:  {0} why --last
  to apply what is missing:      {0} why list pods --as ann --fix | kubectl apply -f -
  why a token is not taken:      {0} why Unauthorized --token \"$TOKEN\"",
        program()
    )
}

/// A resource that every cluster has.
pub struct Builtin {
    pub group: String,
    /// Its plural.
    pub resource: String,
    pub subresources: Vec<String>,
    pub namespaced: bool,
}

/// What is to be explained.
enum Question {
    /// A request; of whom, where the question says so.
    Request {
        asked: Asked,
        by: By,
        said: String,
        /// A right that the same request takes as well, where that is known.
        also: Option<Box<Asked>>,
    },
    /// Words of a command line that only a server can make a request of.
    Words(Vec<String>),
    Escalation {
        user: String,
        namespace: Option<String>,
        rules: Vec<Rule>,
    },
    Admission {
        text: String,
        asked: Asked,
    },
    /// With the reason where the server wrote one down.
    Unauthorized {
        reason: String,
    },
}

/// Who made a request.
enum By {
    /// Whoever asks now, or `--as`.
    Caller,
    /// The text of a refusal says the name; the groups are not in it.
    Named,
    /// The server has said all.
    Known,
}

impl Why {
    /// `builtin` knows the resources that every cluster has, for where the server does not tell its own.
    pub async fn run(self, global: &Global, builtin: fn(&str) -> Option<Builtin>) -> Outcome {
        let format = Format::parse(self.output.as_deref())?;
        let explanation = self.explanation(global, builtin).await?;
        if self.fix {
            return print(manifest(&explanation)?);
        }
        match format {
            Format::Table { .. } => print(text(&explanation)),
            format => print(output::object(&format, &serde_json::json!(explanation))?),
        }
    }

    async fn explanation(&self, global: &Global, builtin: fn(&str) -> Option<Builtin>) -> Outcome<Explanation> {
        let question = match (self.last, self.words.as_slice()) {
            (true, _) => last(global).await?,
            (false, []) if std::io::stdin().is_terminal() => return Err(nothing()),
            (false, []) => question(&stdin()?)?,
            (false, [dash]) if dash == "-" => question(&stdin()?)?,
            (false, [one]) => question(one)?,
            (false, words) => question(&words.join(" ")).unwrap_or_else(|_| Question::Words(words.to_vec())),
        };
        match question {
            Question::Unauthorized { reason } => credentials::explain(global, &reason).await,
            Question::Escalation { user, namespace, rules } => Ok(escalation(user, namespace, rules, global)),
            Question::Admission { text, asked } => {
                let repair = "no Role changes this: change the object, or the policy that refuses it";
                Ok(Explanation::of(asked, vec![Finding::new(Cause::NotRights, text, repair)]))
            }
            Question::Words(words) => {
                let client = caller(global)?;
                let asked = self.asked(&client, &words, builtin).await?;
                self.of_request(global, &client, asked, By::Caller, "").await
            }
            Question::Request { asked, by, said, also } => {
                let client = caller(global)?;
                let mut explanation = self.of_request(global, &client, asked, by, &said).await?;
                if let Some(also) = also.filter(|_| !explanation.fix.is_empty()) {
                    explanation.fix.extend(rights::explain::fix(&also));
                }
                Ok(explanation)
            }
        }
    }

    async fn of_request(
        &self,
        global: &Global,
        client: &Client,
        asked: Asked,
        by: By,
        said: &str,
    ) -> Outcome<Explanation> {
        match collect::who(client, global, asked, by).await {
            Ok((asked, whose)) => {
                let mut known = collect::known(client, &asked, whose).await;
                known.said = said.to_string();
                Ok(rights::explain(&asked, &known))
            }
            // Who is not let in at all has another trouble first.
            Err(error) if error.is_unauthorized() => credentials::explain(global, "").await,
            Err(error) => Err(error.into()),
        }
    }

    /// What `VERB TYPE[/SUBRESOURCE] [NAME]` asks for, by nobody yet.
    async fn asked(&self, client: &Client, words: &[String], builtin: fn(&str) -> Option<Builtin>) -> Outcome<Asked> {
        let [verb, what, names @ ..] = words else {
            return Err(Failure::new("a refusal's text, a request line, or a verb and a resource are explained")
                .hint(format!("{} why list pods --as system:serviceaccount:NAMESPACE:NAME", program())));
        };
        let (word, part) = what.split_once('/').unwrap_or((what, ""));
        let name = names.first().map_or("", String::as_str).to_string();
        let mut asked = Asked { verb: verb.to_lowercase(), name, ..Asked::default() };
        let (subresources, namespaced) = match Discovery::fetch(client).await.ok().as_ref().and_then(|d| d.find(word)) {
            Some(found) => {
                asked.group = found.resource.group.to_string();
                asked.resource = found.resource.plural.to_string();
                (found.subresources.clone(), found.resource.namespaced)
            }
            None => match builtin(word) {
                Some(kind) => {
                    (asked.group, asked.resource) = (kind.group, kind.resource);
                    (kind.subresources, kind.namespaced)
                }
                None => {
                    let (resource, group) = word.split_once('.').unwrap_or((word, ""));
                    (asked.resource, asked.group) = (resource.to_string(), group.to_string());
                    (Vec::new(), true)
                }
            },
        };
        // `pods/log` is a subresource, `pods/web` a name.
        match subresources.iter().any(|sub| sub == part) || !asked.name.is_empty() {
            true => asked.subresource = part.to_string(),
            false => asked.name = part.to_string(),
        }
        if let Some(subresource) = &self.subresource {
            asked.subresource.clone_from(subresource);
        }
        if namespaced && !self.all_namespaces {
            asked.namespace = client.default_namespace().to_string();
        }
        Ok(asked)
    }
}

/// The caller's own client: `--as` says about whom is asked, not as whom.
fn caller(global: &Global) -> Result<Client, Error> {
    let own = Global { as_user: None, as_group: Vec::new(), as_uid: None, ..global.clone() };
    own.client()
}

/// A client that asks as somebody.
fn acting(client: &Client, asked: &Asked, global_groups: &[String]) -> Result<Client, Error> {
    let whom = Impersonate { user: Some(asked.user.clone()), groups: global_groups.to_vec(), ..Impersonate::default() };
    client.clone().impersonating(&whom)
}

fn stdin() -> Outcome<String> {
    let mut bytes = Vec::new();
    std::io::stdin().take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn nothing() -> Failure {
    Failure::new("nothing to explain")
        .hint(format!("kubectl get pods 2>&1 | {0} why, or {0} why list pods --as USER", program()))
}

/// What a text asks to be explained: a refusal, its Status, a request line, or words.
fn question(text: &str) -> Outcome<Question> {
    let message = status_message(text);
    let text = message.as_deref().unwrap_or(text).trim();
    if text.is_empty() {
        return Err(nothing());
    }
    match Refusal::read(text) {
        Some(Refusal::Rights { asked, reason }) => {
            return Ok(Question::Request { asked, by: By::Named, said: reason, also: None });
        }
        Some(Refusal::Escalation { user, rules, .. }) => {
            let everywhere = text.contains("clusterroles.rbac") || text.contains("clusterrolebindings.rbac");
            return Ok(Question::Escalation { user, namespace: everywhere.then(String::new), rules });
        }
        Some(Refusal::Admission(text)) => return Ok(Question::Admission { text, asked: Asked::default() }),
        Some(Refusal::Unauthorized) => return Ok(Question::Unauthorized { reason: String::new() }),
        None => {}
    }
    if let Some(asked) = request_line(text) {
        return Ok(Question::Request { asked, by: By::Caller, said: String::new(), also: None });
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
    // A verb, a resource, a name: what is longer was to be a refusal.
    match words.len() {
        2 | 3 => Ok(Question::Words(words)),
        _ => Err(Failure::new("this is neither a refusal, nor a request line, nor a verb and a resource")
            .hint(format!("quote the refusal's text, or pipe it: kubectl get pods 2>&1 | {} why", program()))),
    }
}

/// The message of a Status, with whatever was printed before it.
fn status_message(text: &str) -> Option<String> {
    let json = &text[text.find('{')?..];
    let status: Value = serde_json::Deserializer::from_str(json).into_iter().next()?.ok()?;
    (status["kind"] == "Status").then(|| status["message"].as_str().map(str::to_string))?
}

/// `GET /api/v1/pods`, `GET https://host/api/v1/pods`.
fn request_line(text: &str) -> Option<Asked> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let mut words = text.split_whitespace();
    let (method, target) = (words.next()?.to_uppercase(), words.next()?);
    let path = match target.strip_prefix("https://") {
        Some(rest) => &rest[rest.find('/')?..],
        None => target,
    };
    if !METHODS.contains(&method.as_str()) || !path.starts_with('/') {
        return None;
    }
    Ask::parse(&method, path).ok().map(|ask| Asked::of_request(&ask))
}

/// The last refusal that the server remembers.
async fn last(global: &Global) -> Outcome<Question> {
    let mut path = "/explain/denials?limit=1".to_string();
    if let Some(user) = &global.as_user {
        let user: String = api::Query(vec![("user".into(), user.clone())]).print();
        path = format!("{path}&{user}");
    }
    let answer: Value = caller(global)?.get(&path).await.map_err(|error| match error.code() {
        Some(403 | 404) => Failure::from(error).hint(format!(
            "only kemudi's own server remembers refusals, and tells them to who may list all roles and bindings; \
             elsewhere give the refusal's text: kubectl get pods 2>&1 | {} why",
            program()
        )),
        _ => error.into(),
    })?;
    let denial = &answer["items"][0];
    let message = denial["message"].as_str().unwrap_or_default();
    if denial.is_null() {
        return Err(
            Failure::new("the server has refused nothing yet").hint(format!("{} why list pods --as USER", program()))
        );
    }
    if denial["code"] == 401 {
        return Ok(Question::Unauthorized { reason: message.to_string() });
    }
    let asked: Asked = serde_json::from_value(denial["request"].clone()).unwrap_or_default();
    Ok(match Refusal::read(message) {
        // What was refused may be something else than what was asked for: to act as somebody, to create by a patch.
        Some(Refusal::Rights { asked: refused, reason }) => {
            let groups = if refused.user == asked.user { asked.groups } else { refused.groups.clone() };
            let asked = Asked { groups, ..refused };
            let whom = denial["whom"].as_str().unwrap_or_default();
            let also = rights::impersonation::to_act_as(&asked, whom).map(Box::new);
            Question::Request { asked, by: By::Known, said: reason, also }
        }
        Some(Refusal::Escalation { user, rules, .. }) => {
            Question::Escalation { user, namespace: Some(asked.namespace), rules }
        }
        _ => Question::Admission { text: message.to_string(), asked },
    })
}

fn escalation(user: String, namespace: Option<String>, rules: Vec<Rule>, global: &Global) -> Explanation {
    let namespace = namespace
        .or_else(|| global.namespace.clone())
        .or_else(|| global.config().ok().map(|config| config.namespace))
        .unwrap_or_default();
    let lines: Vec<String> = rules.iter().map(ToString::to_string).collect();
    let message = format!("{user} may not hand out what it does not hold itself: {}", lines.join(", "));
    let repair = "let somebody write the role who holds this, or give it to that user, or the verb `escalate` (`bind` for a binding)";
    let asked = Asked { user: user.clone(), namespace: namespace.clone(), ..Asked::default() };
    let mut explanation = Explanation::of(asked, vec![Finding::new(Cause::Escalation, message, repair)]);
    explanation.fix = rights::explain::fix_for_rules(&user, &namespace, &rules);
    explanation
}

/// What is to be applied, as YAML documents.
fn manifest(explanation: &Explanation) -> Outcome<String> {
    if explanation.fix.is_empty() {
        let finding = explanation.causes.first();
        let why = finding.map(|finding| finding.message.clone()).unwrap_or_default();
        let repair = finding.map(|finding| finding.repair.clone()).filter(|repair| !repair.is_empty());
        let hint = explanation.instead.as_ref().map(|meant| format!("it is allowed to {}", meant.describe()));
        return Err(Failure { hint: hint.or(repair), ..Failure::new(format!("nothing to apply: {why}")) });
    }
    Ok(documents(&explanation.fix))
}

fn documents(objects: &[Value]) -> String {
    let documents: Vec<String> =
        objects.iter().map(|object| api::codec::to_yaml(object).trim_end().to_string()).collect();
    documents.join("\n---\n") + "\n"
}

/// An explanation for people.
fn text(explanation: &Explanation) -> String {
    let Explanation { request, allowed, causes, near_misses, unseen, instead, fix } = explanation;
    let mut out = String::new();
    if !request.verb.is_empty() {
        let may = if *allowed { "may" } else { "may not" };
        out += &format!("{} {may} {}\n\n", request.user, request.describe());
    }
    for (at, Finding { cause, message, repair }) in causes.iter().enumerate() {
        match (at, *allowed) {
            (_, true) => out += &format!("{message}\n"),
            (0, _) => out += &format!("cause: {cause:?}\n  {message}\n"),
            _ => out += &format!("and: {cause:?}\n  {message}\n"),
        }
        if !repair.is_empty() {
            out += &format!("  to repair it: {repair}\n");
        }
    }
    if let Some(meant) = instead {
        out += &format!("\nmost likely meant: {}\n", meant.describe());
    }
    if !near_misses.is_empty() {
        out += "\nnear misses:\n";
        for miss in near_misses {
            let all: Vec<String> =
                miss.findings.iter().map(|finding| format!("{:?}: {}", finding.cause, finding.message)).collect();
            out += &format!("  {}\n", all.join("; "));
        }
    }
    if !unseen.is_empty() {
        out += "\nnot seen, so that a reason may hide there:\n";
        unseen.iter().for_each(|what| out += &format!("  {what}\n"));
    }
    if !fix.is_empty() {
        out += "\nthe least that allows it (the same with --fix | kubectl apply -f -):\n\n";
        out += &documents(fix);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match question(text) {
            Err(failure) => failure.message,
            Ok(Question::Request { asked, by, .. }) => {
                let by = if matches!(by, By::Named) { asked.user.as_str() } else { "caller" };
                format!("{by}: {}", asked.describe())
            }
            Ok(Question::Words(words)) => format!("words: {}", words.join(" ")),
            Ok(Question::Escalation { user, namespace, rules }) => format!("{user} {namespace:?} {}", rules.len()),
            Ok(Question::Admission { text, .. }) => format!("admission: {text}"),
            Ok(Question::Unauthorized { .. }) => "unauthorized".to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn every_form_of_a_question_is_read() {
        let text = r#"pods "web" is forbidden: User "u&amp;v" cannot get resource "pods/log" in API group "" in the namespace "a""#;
        let want = r#"u&v: get pods/log "web" in namespace "a""#;
        check(text, want);
        check(&format!("Error from server (Forbidden): {text}"), want);
        let status = api::Status::failure(403, api::Reason::Forbidden, text).to_value();
        check(&status.to_string(), want);
        check(&format!("HTTP/1.1 403\n{}", String::from_utf8_lossy(&api::codec::to_pretty_json(&status))), want);
        check("GET /api/v1/namespaces/a/pods", "caller: list pods in namespace \"a\"");
        check(
            "delete https://127.0.0.1:6443/apis/apps/v1/namespaces/a/deployments/d?x=y",
            "caller: delete deployments in API group apps \"d\" in namespace \"a\"",
        );
        check("get /metrics", "caller: get path \"/metrics\"");
        check("list pods/log", "words: list pods/log");
        check("error: You must be logged in to the server (Unauthorized)", "unauthorized");
        check(r#"pods "x" is forbidden: exceeded quota: q"#, "admission: exceeded quota: q");
        check(
            "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"u\" (groups=[\"g\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}",
            "u None 1",
        );
        check(
            "what is this all about",
            "error: this is neither a refusal, nor a request line, nor a verb and a resource",
        );
    }
}
