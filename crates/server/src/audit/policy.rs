//! The audit policy: which requests are written down, and how much of them. The first rule that matches decides, none
//! means no. Reads the file once, at start, and decides by a request's attributes alone.

use std::path::Path;
use std::sync::LazyLock;

use api::yaml;
use kinds::schema::Schema;
use kinds::{Cause, decode, tables, validate};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authz::Attributes;

const API_VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";

/// The types of the file, in the form of the tables of built-in kinds.
const TYPES: &str = "\
audit.v1.Policy
  kind string 0 omitempty
  apiVersion string 0 omitempty
  metadata any 1 omitempty
  rules []audit.v1.PolicyRule 2
  omitStages []string 3 omitempty go=v1.Stage
  omitManagedFields bool 4 omitempty
audit.v1.PolicyRule
  level string 1 go=v1.Level
  users []string 2 omitempty
  userGroups []string 3 omitempty
  verbs []string 4 omitempty
  resources []audit.v1.GroupResources 5 omitempty
  namespaces []string 6 omitempty
  nonResourceURLs []string 7 omitempty
  omitStages []string 8 omitempty go=v1.Stage
  omitManagedFields *bool 9 omitempty
audit.v1.GroupResources
  group string 1 omitempty
  resources []string 2 omitempty
  resourceNames []string 3 omitempty
";

/// How much of a request is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    #[default]
    None,
    /// Who asked for what, and what became of it.
    Metadata,
    /// The object of the request too.
    Request,
    /// The object of the answer too.
    RequestResponse,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    fn parse(text: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// When in a request's life something is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// It is known who asks for what; nothing was done yet.
    RequestReceived,
    /// The head of the answer is about to be sent; only for requests that live long.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// Answering it made the server panic.
    Panic,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages([bool; Stage::ALL.len()]);

impl Stages {
    pub fn has(self, stage: Stage) -> bool {
        self.0[stage as usize]
    }

    fn of(names: &[String]) -> Stages {
        Stages(Stage::ALL.map(|stage| names.iter().any(|name| name == stage.as_str())))
    }

    fn and(self, other: Stages) -> Stages {
        Stages(Stage::ALL.map(|stage| self.has(stage) || other.has(stage)))
    }
}

/// What a policy says of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    pub omit_stages: Stages,
    pub omit_managed_fields: bool,
}

/// A policy that was read and checked.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    omitted: Decision,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct File {
    rules: Vec<RuleFile>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleFile {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    file: RuleFile,
    decision: Decision,
}

impl Policy {
    /// Reads `--audit-policy-file`.
    ///
    /// # Errors
    /// What is wrong with it, in kube-apiserver's words.
    pub fn open(path: &Path) -> Result<Policy, String> {
        let shown = path.display();
        let bytes = std::fs::read(path).map_err(|why| {
            let why = match why.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_string(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_string(),
                _ => why.to_string(),
            };
            format!(
                "loading audit policy file: failed to read file path {}: open {shown}: {why}",
                api::go::quote(&shown.to_string())
            )
        })?;
        let (policy, warning) =
            Policy::parse(&bytes).map_err(|why| format!("loading audit policy file: {why}: from file {shown}"))?;
        if let Some(warning) = warning {
            tracing::warn!("Audit policy contains errors, falling back to lenient decoding: {warning}");
        }
        Ok(policy)
    }

    /// A policy, and what in the file means nothing.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Policy, Option<String>), String> {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(|| tables::types_of(TYPES));
        let failed = |why: String| format!("failed decoding: {why}");
        let (json, duplicates) = match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => (bytes.to_vec(), Vec::new()),
            _ => {
                let document = yaml::read(bytes).map_err(failed)?;
                (api::codec::to_json(&document.value), document.duplicates)
            }
        };
        let (api_version, kind) = decode::type_meta(&json)
            .map_err(|why| failed(format!("couldn't get version/kind; json parse error: {why}")))?;
        check_type(&api_version, &kind)?;
        let root = SCHEMA.find("audit.v1.Policy").ok_or("the policy has no type")?;
        let decoded = decode::decode(&SCHEMA, root, &json).map_err(|why| failed(why.to_string()))?;
        let strict: Vec<String> = (!duplicates.is_empty())
            .then(|| format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  ")))
            .into_iter()
            .chain(decoded.strict)
            .collect();
        let warning = (!strict.is_empty()).then(|| format!("strict decoding error: {}", strict.join(", ")));
        let file: File =
            serde_json::from_value(api::codec::without_nulls(decoded.object)).map_err(|why| failed(why.to_string()))?;
        let errors: Vec<String> = file.errors().iter().map(Cause::to_string).collect();
        if !errors.is_empty() {
            return Err(crate::authz::aggregate(&errors));
        }
        if file.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        Ok((Policy::of(file), warning))
    }

    fn of(file: File) -> Policy {
        let omitted = Decision {
            level: Level::None,
            omit_stages: Stages::of(&file.omit_stages),
            omit_managed_fields: file.omit_managed_fields,
        };
        let rules = file.rules.into_iter().map(|rule| {
            let decision = Decision {
                level: Level::parse(&rule.level).unwrap_or_default(),
                omit_stages: omitted.omit_stages.and(Stages::of(&rule.omit_stages)),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(omitted.omit_managed_fields),
            };
            Rule { file: rule, decision }
        });
        Policy { rules: rules.collect(), omitted }
    }

    /// What becomes of a request. `known`: its sender could be authenticated.
    pub fn decide(&self, attributes: &Attributes<'_>, known: bool) -> Decision {
        let found = self.rules.iter().find(|rule| rule.file.matches(attributes, known));
        found.map_or(self.omitted, |rule| rule.decision)
    }
}

/// The file must say of which version it is; that it is a policy goes without saying.
fn check_type(api_version: &str, kind: &str) -> Result<(), String> {
    use api::go::quote;
    let kind = if kind.is_empty() { KIND } else { kind };
    match (api_version, kind) {
        (API_VERSION, KIND) => Ok(()),
        (API_VERSION, "Event" | "EventList" | "PolicyList") => {
            Err(format!("failed decoding: converting (v1.{kind}) to (audit.Policy): unknown conversion"))
        }
        ("", KIND) => Err("unknown group version field audit.k8s.io/__internal, Kind=Policy in policy".into()),
        (version, _) if version.matches('/').count() > 1 => {
            Err(format!("failed decoding: unexpected GroupVersion string: {version}"))
        }
        (version, kind) => {
            let version = if version.is_empty() { "audit.k8s.io/__internal" } else { version };
            Err(format!(
                "failed decoding: no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
                quote(kind),
                quote(version)
            ))
        }
    }
}

impl File {
    fn errors(&self) -> Vec<Cause> {
        let mut causes = stage_errors(&self.omit_stages, "omitStages");
        for (at, rule) in self.rules.iter().enumerate() {
            causes.extend(rule.errors(&format!("rules[{at}]")));
        }
        causes
    }
}

impl RuleFile {
    fn errors(&self, path: &str) -> Vec<Cause> {
        let mut causes = Vec::new();
        let level = format!("{path}.level");
        match Level::parse(&self.level) {
            Some(_) => {}
            None if self.level.is_empty() => causes.push(Cause::required(level, "")),
            None => causes.push(Cause::not_supported(level, &json!(self.level), &Level::ALL.map(Level::as_str))),
        }
        for (at, url) in self.paths.iter().enumerate().filter(|(_, url)| *url != "*") {
            let field = format!("{path}.nonResourceURLs[{at}]");
            if !url.starts_with('/') {
                let text = "non-resource URL rules must begin with a '/' character";
                causes.push(Cause::invalid(&field, &json!(url), text));
            }
            if url.bytes().rev().skip(1).any(|byte| byte == b'*') {
                let text = "non-resource URL wildcards '*' must be the final character of the rule";
                causes.push(Cause::invalid(field, &json!(url), text));
            }
        }
        for of in &self.resources {
            // Groups are written as in RBAC: without a version.
            let wrong = match of.group.as_str() {
                "" | "*" => Vec::new(),
                group => validate::dns1123_subdomain(group),
            };
            if !wrong.is_empty() {
                let field = format!("{path}.resources.group");
                causes.push(Cause::invalid(field, &json!(of.group), &wrong.join(",")));
            }
            if !of.resource_names.is_empty() && of.resources.is_empty() {
                let field = format!("{path}.resources.resourceNames");
                let text = "using resourceNames requires at least one resource";
                causes.push(Cause::invalid(field, &json!(of.resource_names), text));
            }
        }
        causes.extend(stage_errors(&self.omit_stages, &format!("{path}.omitStages")));
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.paths.is_empty() {
            let text = "rules cannot apply to both regular resources and non-resource URLs";
            causes.push(Cause::invalid(format!("{path}.nonResourceURLs"), &json!(self.paths), text));
        }
        causes
    }

    fn matches(&self, attributes: &Attributes<'_>, known: bool) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|item| item == text);
        let named = || known && has(&self.users, &attributes.user.name);
        let grouped = || known && attributes.user.groups.iter().any(|group| has(&self.user_groups, group));
        if !(self.users.is_empty() || named()) || !(self.user_groups.is_empty() || grouped()) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, attributes.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let here = self.namespaces.is_empty() || has(&self.namespaces, attributes.namespace);
            let of_these = || self.resources.is_empty() || self.resources.iter().any(|of| of.matches(attributes));
            return attributes.is_resource && here && of_these();
        }
        if !self.paths.is_empty() {
            return !attributes.is_resource && self.paths.iter().any(|spec| path_matches(attributes.path, spec));
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let Attributes { group, resource, subresource, name, .. } = *attributes;
        if self.group != group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|wanted| wanted == name) {
            return false;
        }
        self.resources.iter().any(|wanted| match wanted.split_once('/') {
            _ if wanted == "*" => true,
            None => subresource.is_empty() && wanted == resource,
            Some((of, part)) => {
                (of == resource && (part == "*" || (part == subresource && !subresource.is_empty())))
                    || (of == "*" && part == subresource && !subresource.is_empty())
            }
        })
    }
}

fn path_matches(path: &str, spec: &str) -> bool {
    spec == "*" || spec == path || (spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*')))
}

fn stage_errors(stages: &[String], path: &str) -> Vec<Cause> {
    let known = Stage::ALL.map(Stage::as_str);
    let wrong = stages.iter().enumerate().filter(|(_, stage)| !known.contains(&stage.as_str()));
    let text = format!("allowed stages are {}", known.join(","));
    wrong.map(|(at, stage)| Cause::invalid(format!("{path}[{at}]"), &json!(stage), &text)).collect()
}

#[cfg(test)]
mod tests {
    use api::Ask;

    use super::*;
    use crate::authn::User;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    /// What a policy with this rule, as YAML in one line, says of `VERB PATH` of ann, who is in group devs.
    #[track_caller]
    fn check(rule: &str, ask: &str, want: Level) {
        let (policy, warning) = Policy::parse(format!("{HEAD}rules:\n- {rule}\n").as_bytes()).unwrap();
        assert_eq!(warning, None);
        assert_eq!(decide(&policy, ask).level, want, "{rule}: {ask}");
    }

    fn decide(policy: &Policy, ask: &str) -> Decision {
        let (method, path) = ask.split_once(' ').unwrap();
        let (user, ask) = (User::new("ann", ["devs", "system:authenticated"]), Ask::parse(method, path).unwrap());
        policy.decide(&crate::authorize::attributes(&user, &ask), true)
    }

    const POD: &str = "GET /api/v1/namespaces/a/pods/web";
    const LOG: &str = "GET /api/v1/namespaces/a/pods/web/log";
    const SCALE: &str = "PUT /apis/apps/v1/namespaces/a/deployments/web/scale";
    const NODES: &str = "GET /api/v1/nodes";
    const HEALTH: &str = "GET /healthz/etcd";

    #[test]
    fn rules() {
        use Level::{Metadata, None, Request, RequestResponse};
        check("level: RequestResponse", POD, RequestResponse);
        check("level: Request", HEALTH, Request);
        check("{level: Metadata, users: [bob]}", POD, None);
        check("{level: Metadata, users: [bob, ann]}", POD, Metadata);
        check("{level: Metadata, userGroups: [ops]}", POD, None);
        check("{level: Metadata, userGroups: [ops, devs]}", POD, Metadata);
        check("{level: Metadata, verbs: [list, watch]}", POD, None);
        check("{level: Metadata, verbs: [get]}", POD, Metadata);
        check("{level: Metadata, verbs: [get]}", HEALTH, Metadata);
        check("{level: Metadata, namespaces: [b]}", POD, None);
        check("{level: Metadata, namespaces: [a]}", POD, Metadata);
        check("{level: Metadata, namespaces: ['']}", POD, None);
        check("{level: Metadata, namespaces: ['']}", NODES, Metadata);
        check("{level: Metadata, namespaces: ['']}", HEALTH, None);
        for (resources, pod, log, scale) in [
            ("[{group: ''}]", Metadata, Metadata, None),
            ("[{group: '*'}]", Metadata, Metadata, Metadata),
            ("[{group: apps}]", None, None, Metadata),
            ("[{resources: [pods]}]", Metadata, None, None),
            ("[{resources: [pods/log]}]", None, Metadata, None),
            ("[{resources: [pods/*]}]", Metadata, Metadata, None),
            ("[{resources: ['*']}]", Metadata, Metadata, None),
            ("[{resources: ['*/log']}]", None, Metadata, None),
            ("[{group: apps, resources: ['*/scale']}]", None, None, Metadata),
            ("[{resources: ['*/*']}]", None, None, None),
            ("[{resources: [pods], resourceNames: [db]}]", None, None, None),
            ("[{resources: [pods], resourceNames: [db, web]}]", Metadata, None, None),
            ("[{group: batch}, {resources: [pods]}]", Metadata, None, None),
        ] {
            let rule = format!("{{level: Metadata, resources: {resources}}}");
            for (ask, want) in [(POD, pod), (LOG, log), (SCALE, scale), (HEALTH, None)] {
                check(&rule, ask, want);
            }
        }
        for (paths, want) in [
            ("['*']", Metadata),
            ("[/healthz]", None),
            ("[/healthz*]", Metadata),
            ("[/healthz/*]", Metadata),
            ("[/healthz/etcd]", Metadata),
            ("[/livez*, /healthz/etcd]", Metadata),
        ] {
            let rule = format!("{{level: Metadata, nonResourceURLs: {paths}}}");
            check(&rule, HEALTH, want);
            check(&rule, POD, None);
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let text = "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
            - {level: None, resources: [{resources: [nodes]}]}\n\
            - {level: Request, verbs: [get], omitStages: [Panic], omitManagedFields: false}\n\
            - {level: RequestResponse, verbs: [get, update]}\n";
        let (policy, _) = Policy::parse(format!("{HEAD}{text}").as_bytes()).unwrap();
        let check = |ask: &str, level: Level, omitted: [bool; 4], managed: bool| {
            let want = Decision { level, omit_stages: Stages(omitted), omit_managed_fields: managed };
            assert_eq!(decide(&policy, ask), want, "{ask}");
        };
        check(NODES, Level::None, [true, false, false, false], true);
        check(POD, Level::Request, [true, false, false, true], false);
        check(SCALE, Level::RequestResponse, [true, false, false, false], true);
        check("POST /api/v1/namespaces/a/pods", Level::None, [true, false, false, false], true);
    }

    #[test]
    fn who_is_not_known_matches_no_user() {
        let rules =
            "rules:\n- {level: Request, users: ['']}\n- {level: Request, userGroups: ['']}\n- level: Metadata\n";
        let (policy, _) = Policy::parse(format!("{HEAD}{rules}").as_bytes()).unwrap();
        let (nobody, ask) = (User::default(), Ask::parse("GET", "/api").unwrap());
        assert_eq!(policy.decide(&crate::authorize::attributes(&nobody, &ask), false).level, Level::Metadata);
    }

    /// Why a file is refused, what is told of it, or that it is good.
    #[track_caller]
    fn read(text: &str, want: &str) {
        let got = match Policy::parse(text.as_bytes()) {
            Ok((_, None)) => "good".to_string(),
            Ok((_, Some(warning))) => warning,
            Err(why) => why,
        };
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_as_upstream_tells_it() {
        let rules = "rules:\n- level: Metadata\n";
        read("", "unknown group version field audit.k8s.io/__internal, Kind=Policy in policy");
        read(
            &format!("kind: Policy\n{rules}"),
            "unknown group version field audit.k8s.io/__internal, Kind=Policy in policy",
        );
        read(&format!("apiVersion: audit.k8s.io/v1\n{rules}"), "good");
        read(&format!("{HEAD}rules: []"), "loaded illegal policy with 0 rules");
        let unknown = |kind: &str, version: &str| {
            format!(
                "failed decoding: no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:111\""
            )
        };
        read(
            &format!("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\n{rules}"),
            &unknown("Policy", "audit.k8s.io/v1beta1"),
        );
        read(&format!("apiVersion: audit.k8s.io/v1\nkind: Polic\n{rules}"), &unknown("Polic", "audit.k8s.io/v1"));
        read("apiVersion: v1\nkind: ConfigMap\n", &unknown("ConfigMap", "v1"));
        read(
            "apiVersion: audit.k8s.io/v1\nkind: EventList\nitems: []",
            "failed decoding: converting (v1.EventList) to (audit.Policy): unknown conversion",
        );
        read("apiVersion: a/b/c\nkind: Policy", "failed decoding: unexpected GroupVersion string: a/b/c");
        let typed = |rest: &str, want: &str| {
            read(&format!("{HEAD}rules:\n{rest}"), &format!("failed decoding: json: cannot unmarshal {want}"));
        };
        typed("- level: 5", "number into Go struct field PolicyRule.rules.level of type v1.Level");
        typed(
            "- level: Metadata\n  users: alice",
            "string into Go struct field PolicyRule.rules.users of type []string",
        );
        typed(
            "- level: Metadata\n  omitManagedFields: \"yes\"",
            "string into Go struct field PolicyRule.rules.omitManagedFields of type bool",
        );
        typed("  level: Metadata", "object into Go struct field Policy.rules of type []v1.PolicyRule");
        read(
            &format!("{HEAD}rules:\n- level: Metadata\n bad: ["),
            "failed decoding: yaml: line 4: did not find expected key",
        );
        read(
            "just text",
            "failed decoding: couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }",
        );
        read(
            r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"None"},{"level":"None",}]}"#,
            "failed decoding: couldn't get version/kind; json parse error: invalid character '}' looking for beginning of object key string",
        );
        read(&format!("{HEAD}rules:\n- users: [a]"), "rules[0].level: Required value");
        read(
            &format!("{HEAD}rules:\n- level: Metadata\n  verb: [get]"),
            "strict decoding error: unknown field \"rules[0].verb\"",
        );
        read(
            &format!("{HEAD}kind: Policy\n{rules}"),
            "strict decoding error: yaml: unmarshal errors:\n  line 3: key \"kind\" already set in map",
        );
    }

    #[test]
    fn all_that_is_wrong_with_rules_is_told_at_once() {
        const GROUP: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        let rules = "omitStages: [Nope]\nrules:\n- level: \"\"\n- level: All\n\
            - {level: Metadata, nonResourceURLs: [\"*\", \"/a*\", \"b\", \"/a*/b\", \"\"], namespaces: [x]}\n\
            - {level: Metadata, resources: [{group: rbac/v1}, {resourceNames: [a, b]}], omitStages: [Panic, panic]}\n";
        let stages = "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic";
        let slash = "non-resource URL rules must begin with a '/' character";
        let want = [
            format!("omitStages[0]: Invalid value: \"Nope\": {stages}"),
            "rules[0].level: Required value".into(),
            "rules[1].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"".into(),
            format!("rules[2].nonResourceURLs[2]: Invalid value: \"b\": {slash}"),
            "rules[2].nonResourceURLs[3]: Invalid value: \"/a*/b\": non-resource URL wildcards '*' must be the final character of the rule".into(),
            format!("rules[2].nonResourceURLs[4]: Invalid value: \"\": {slash}"),
            "rules[2].nonResourceURLs: Invalid value: [\"*\",\"/a*\",\"b\",\"/a*/b\",\"\"]: rules cannot apply to both regular resources and non-resource URLs".into(),
            format!("rules[3].resources.group: Invalid value: \"rbac/v1\": {GROUP}"),
            "rules[3].resources.resourceNames: Invalid value: [\"a\",\"b\"]: using resourceNames requires at least one resource".into(),
            format!("rules[3].omitStages[1]: Invalid value: \"panic\": {stages}"),
        ];
        read(&format!("{HEAD}{rules}"), &format!("[{}]", want.join(", ")));
    }
}
