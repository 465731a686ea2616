//! The file of `--authentication-config`: an AuthenticationConfiguration of `apiserver.config.k8s.io`, read strictly. Checks
//! everything that can be checked without asking anybody, in Kubernetes' words; contacts no issuer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

use api::go;
use kinds::schema::Schema;
use kinds::{Cause, tables};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Options;
use super::expression::{About, Expression};
use super::issuer::{Rules, Source, Trusted};
use super::jwt::Algorithm;
use crate::authz::aggregate;
use crate::config_file::{self, Format, Shown, read};

/// The issuers of one configuration.
const ISSUERS_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    pub jwt: Vec<Jwt>,
    pub anonymous: Option<Anonymous>,
}

/// Who sends no credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Anonymous {
    pub enabled: bool,
    /// The only paths that may be asked for so; all where there are none.
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    pub path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Jwt {
    pub issuer: Issuer,
    pub claim_validation_rules: Vec<ClaimRule>,
    pub claim_mappings: Mappings,
    pub user_validation_rules: Vec<UserRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Issuer {
    pub url: String,
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UserRule {
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Mappings {
    pub username: Mapping,
    pub groups: Mapping,
    pub uid: Mapping,
    pub extra: Vec<Extra>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Mapping {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Extra {
    pub key: String,
    pub value_expression: String,
}

impl Anonymous {
    /// As it is where nobody says otherwise.
    pub fn everywhere() -> Anonymous {
        Anonymous { enabled: true, conditions: Vec::new() }
    }

    /// Whether a request for this decoded path needs no credential.
    pub fn is_allowed(&self, path: &str) -> bool {
        self.enabled && (self.conditions.is_empty() || self.conditions.iter().any(|condition| condition.path == path))
    }
}

/// The older flags for one issuer, as they are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcFlags {
    pub issuer_url: Option<String>,
    pub client_id: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub username_claim: Option<String>,
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: Option<String>,
    /// Of the form `claim=value`.
    pub required_claims: Vec<String>,
    pub signing_algorithms: Vec<String>,
}

impl OidcFlags {
    /// The same as a configuration, and the signature algorithms that are taken.
    ///
    /// # Errors
    /// What is wrong with the flags, in kube-apiserver's words.
    pub fn to_configuration(&self) -> Result<(Configuration, Vec<String>), String> {
        let (Some(url), Some(client)) = (&self.issuer_url, &self.client_id) else {
            return Err(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set".into()
            );
        };
        let mut algorithms = self.signing_algorithms.clone();
        if algorithms.is_empty() {
            algorithms.push("RS256".into());
        }
        if let Some(other) = algorithms.iter().find(|name| Algorithm::named(name).is_none()) {
            return Err(format!("oidc: unsupported signing alg: {}", go::quote(other)));
        }
        let username = self.username_claim.clone().unwrap_or("sub".into());
        // Names that are not addresses are told apart from those of others by their issuer.
        let prefix = match self.username_prefix.as_deref().unwrap_or_default() {
            "" if username != "email" => format!("{url}#"),
            "-" => String::new(),
            prefix => prefix.to_string(),
        };
        let groups = self.groups_claim.clone().filter(|claim| !claim.is_empty());
        let groups = groups.map(|claim| Mapping {
            claim,
            prefix: Some(self.groups_prefix.clone().unwrap_or_default()),
            expression: String::new(),
        });
        let required = |pair: &String| match pair.split_once('=') {
            Some((claim, value)) => Ok(ClaimRule {
                claim: claim.trim().to_string(),
                required_value: value.trim().to_string(),
                ..ClaimRule::default()
            }),
            None => Err(format!("--oidc-required-claim: malformed pair, expect string=string: {pair}")),
        };
        let jwt = Jwt {
            issuer: Issuer {
                url: url.clone(),
                audiences: vec![client.clone()],
                certificate_authority: self.ca_file.as_deref().map_or(Ok(String::new()), read)?,
                ..Issuer::default()
            },
            claim_validation_rules: self.required_claims.iter().map(required).collect::<Result<_, _>>()?,
            claim_mappings: Mappings {
                username: Mapping { claim: username, prefix: Some(prefix), expression: String::new() },
                groups: groups.unwrap_or_default(),
                ..Mappings::default()
            },
            user_validation_rules: Vec::new(),
        };
        Ok((Configuration { jwt: vec![jwt], anonymous: None }, algorithms))
    }
}

/// What the options come to.
#[derive(Default)]
pub struct Loaded {
    pub trusted: Vec<Trusted>,
    pub anonymous: Anonymous,
    /// The text of the file; empty where there is none.
    pub text: String,
}

/// What the options come to.
///
/// # Errors
/// What is wrong with them or the file, in Kubernetes' words.
pub fn load(options: &Options, own_issuers: &[String]) -> Result<Loaded, String> {
    let mut text = String::new();
    let (configuration, algorithms) = match (&options.config_file, &options.oidc) {
        (Some(_), Some(_)) => return Err("authentication-config file and oidc-* flags are mutually exclusive".into()),
        (None, Some(flags)) => flags.to_configuration()?,
        (None, None) => (Configuration::default(), all_algorithms()),
        (Some(path), None) => {
            let name = go::quote(&path.display().to_string());
            let failed = |why| format!("failed to load authentication configuration from file {name}: {why}");
            text = read(path).map_err(failed)?;
            (Configuration::parse(&text).map_err(failed)?, all_algorithms())
        }
    };
    let anonymous = match (&configuration.anonymous, options.anonymous) {
        (Some(_), Some(_)) => {
            let why = "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in \
                       authentication configuration file";
            return Err(why.into());
        }
        (Some(anonymous), None) => anonymous.clone(),
        (None, flag) => Anonymous { enabled: flag.unwrap_or(true), conditions: Vec::new() },
    };
    Ok(Loaded { trusted: compiled(&configuration, own_issuers, &algorithms)?, anonymous, text })
}

/// The issuers that the text of a file names.
///
/// # Errors
/// What is wrong with it, in Kubernetes' words.
pub fn issuers(text: &str, own_issuers: &[String]) -> Result<Vec<Trusted>, String> {
    compiled(&Configuration::parse(text)?, own_issuers, &all_algorithms())
}

fn compiled(
    configuration: &Configuration,
    own_issuers: &[String],
    algorithms: &[String],
) -> Result<Vec<Trusted>, String> {
    let invalid = |why| format!("invalid authentication configuration: {why}");
    configuration.compile(own_issuers, algorithms).map_err(invalid)
}

/// A file may not choose among them.
fn all_algorithms() -> Vec<String> {
    Algorithm::ALL.map(|algorithm| algorithm.name().to_string()).to_vec()
}

/// The types of the file, in the form of the tables of built-in kinds.
const TYPES: &str = "\
apiserver.v1.AuthenticationConfiguration
  kind string 0 omitempty
  apiVersion string 0 omitempty
  jwt []apiserver.v1.JWTAuthenticator 1
  anonymous *apiserver.v1.AnonymousAuthConfig 2 omitempty
apiserver.v1.JWTAuthenticator
  issuer apiserver.v1.Issuer 1
  claimValidationRules []apiserver.v1.ClaimValidationRule 2 omitempty
  claimMappings apiserver.v1.ClaimMappings 3
  userValidationRules []apiserver.v1.UserValidationRule 4 omitempty
apiserver.v1.Issuer
  url string 1
  discoveryURL *string 2 omitempty
  certificateAuthority string 3 omitempty
  audiences []string 4
  audienceMatchPolicy string 5 omitempty
  egressSelectorType string 6 omitempty
apiserver.v1.ClaimValidationRule
  claim string 1 omitempty
  requiredValue string 2 omitempty
  expression string 3 omitempty
  message string 4 omitempty
apiserver.v1.ClaimMappings
  username apiserver.v1.PrefixedClaimOrExpression 1
  groups apiserver.v1.PrefixedClaimOrExpression 2 omitempty
  uid apiserver.v1.ClaimOrExpression 3 omitempty
  extra []apiserver.v1.ExtraMapping 4 omitempty
apiserver.v1.PrefixedClaimOrExpression
  claim string 1 omitempty
  prefix *string 2 omitempty
  expression string 3 omitempty
apiserver.v1.ClaimOrExpression
  claim string 1 omitempty
  expression string 2 omitempty
apiserver.v1.ExtraMapping
  key string 1
  valueExpression string 2
apiserver.v1.UserValidationRule
  expression string 1
  message string 2 omitempty
apiserver.v1.AnonymousAuthConfig
  enabled bool 1
  conditions []apiserver.v1.AnonymousAuthCondition 2
apiserver.v1.AnonymousAuthCondition
  path string 1
";

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| tables::types_of(TYPES));

const FORMAT: Format = Format {
    kind: "AuthenticationConfiguration",
    schema: &SCHEMA,
    root: "apiserver.v1.AuthenticationConfiguration",
    shown: Shown::AsJson,
};

impl Configuration {
    /// Reads the text of a file, YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it, in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Configuration, String> {
        if text.is_empty() {
            return Err("empty config data".into());
        }
        serde_json::from_value(config_file::object(text, &FORMAT)?).map_err(|why| why.to_string())
    }

    /// Checks all of it and compiles its expressions. `own_issuers` are the issuers of service account tokens, `algorithms`
    /// the names of the signature algorithms that are taken.
    ///
    /// # Errors
    /// All that is wrong, in Kubernetes' words.
    pub fn compile(&self, own_issuers: &[String], algorithms: &[String]) -> Result<Vec<Trusted>, String> {
        let mut errors = Vec::new();
        let mut trusted = Vec::new();
        if self.jwt.len() > ISSUERS_MAX {
            errors.push(Cause::too_many("jwt", self.jwt.len(), ISSUERS_MAX));
            return Err(told(&errors));
        }
        let (mut urls, mut discovery_urls) = (BTreeSet::new(), BTreeSet::new());
        for (at, jwt) in self.jwt.iter().enumerate() {
            let path = format!("jwt[{at}]");
            check_issuer(&jwt.issuer, own_issuers, &format!("{path}.issuer"), &mut errors);
            let rules = compile_rules(jwt, &path, &mut errors);
            if !urls.insert(&jwt.issuer.url) {
                errors.push(Cause::duplicate(format!("{path}.issuer.url"), &json!(&jwt.issuer.url)));
            }
            if !jwt.issuer.discovery_url.is_empty() && !discovery_urls.insert(&jwt.issuer.discovery_url) {
                errors.push(Cause::duplicate(format!("{path}.issuer.discoveryURL"), &json!(&jwt.issuer.discovery_url)));
            }
            let issuer = jwt.issuer.clone();
            trusted.extend(rules.map(|rules| Trusted { issuer, algorithms: algorithms.to_vec(), rules }));
        }
        if let Some(anonymous) = self.anonymous.as_ref().filter(|a| !a.enabled && !a.conditions.is_empty()) {
            let why = "enabled should be set to true when conditions are defined";
            errors.push(Cause::invalid("anonymous.conditions", &json!(anonymous.conditions), why));
        }
        if errors.is_empty() { Ok(trusted) } else { Err(told(&errors)) }
    }
}

/// What is wrong, in one text.
fn told(errors: &[Cause]) -> String {
    aggregate(&errors.iter().map(Cause::to_string).collect::<Vec<_>>())
}

fn check_issuer(issuer: &Issuer, own_issuers: &[String], path: &str, errors: &mut Vec<Cause>) {
    let (url, discovery) = (&issuer.url, &issuer.discovery_url);
    match url.as_str() {
        "" => errors.push(Cause::required(format!("{path}.url"), "")),
        url => check_url(url, own_issuers, &format!("{path}.url"), errors),
    }
    if !discovery.is_empty() {
        let path = format!("{path}.discoveryURL");
        if !url.is_empty() && url.trim_end_matches('/') == discovery.trim_end_matches('/') {
            errors.push(Cause::invalid(&path, &json!(discovery), "discoveryURL must be different from URL"));
        }
        check_url(discovery, &[], &path, errors);
    }
    check_audiences(issuer, path, errors);
    if !issuer.certificate_authority.is_empty() && !is_authority(&issuer.certificate_authority) {
        let why = "data does not contain any valid RSA or ECDSA certificates";
        errors.push(Cause::invalid(format!("{path}.certificateAuthority"), &json!("<omitted>"), why));
    }
    match issuer.egress_selector_type.as_str() {
        "" => {}
        other @ ("controlplane" | "cluster") => {
            let why = "egress selectors are not supported here: leave it out, and the issuer is reached directly";
            errors.push(Cause::invalid(format!("{path}.egressSelectorType"), &json!(other), why));
        }
        other => {
            let why = "egress selector must be either controlplane or cluster";
            errors.push(Cause::invalid(format!("{path}.egressSelectorType"), &json!(other), why));
        }
    }
}

fn is_authority(pem: &str) -> bool {
    use rustls_pki_types::pem::PemObject;
    let mut certificates = rustls_pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()).peekable();
    certificates.peek().is_some()
        && certificates.all(|der| der.is_ok_and(|der| webpki::anchor_from_trusted_cert(&der).is_ok()))
}

fn check_url(url: &str, disallowed: &[String], path: &str, errors: &mut Vec<Cause>) {
    if disallowed.iter().any(|issuer| issuer == url) {
        let mut sorted = disallowed.to_vec();
        sorted.sort();
        errors.push(Cause::invalid(
            path,
            &json!(url),
            &format!("URL must not overlap with disallowed issuers: [{}]", sorted.join(" ")),
        ));
    }
    if url.contains(|c: char| c.is_control() || c == ' ') {
        errors.push(Cause::invalid(
            path,
            &json!(url),
            &format!("parse {}: net/url: invalid control character in URL", go::quote(url)),
        ));
        return;
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    if !scheme.eq_ignore_ascii_case("https") {
        errors.push(Cause::invalid(path, &json!(url), "URL scheme must be https"));
    }
    if !scheme.is_empty() && rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        errors.push(Cause::invalid(path, &json!(url), "URL must not contain a username or password"));
    }
    if !query.is_empty() {
        errors.push(Cause::invalid(path, &json!(url), "URL must not contain a query"));
    }
    if !fragment.is_empty() {
        errors.push(Cause::invalid(path, &json!(url), "URL must not contain a fragment"));
    }
}

fn check_audiences(issuer: &Issuer, path: &str, errors: &mut Vec<Cause>) {
    let audiences = format!("{path}.audiences");
    let policy = issuer.audience_match_policy.as_str();
    let policy_path = format!("{path}.audienceMatchPolicy");
    if issuer.audiences.is_empty() {
        errors.push(Cause::required(&audiences, &format!("at least one {audiences} is required")));
        return;
    }
    let mut seen = BTreeSet::new();
    for (at, audience) in issuer.audiences.iter().enumerate() {
        let path = format!("{audiences}[{at}]");
        if audience.is_empty() {
            errors.push(Cause::required(&path, ""));
        }
        if !seen.insert(audience) {
            errors.push(Cause::duplicate(&path, &json!(audience)));
        }
    }
    if issuer.audiences.len() > 1 && policy != "MatchAny" {
        errors.push(Cause::invalid(
            &policy_path,
            &json!(policy),
            "audienceMatchPolicy must be MatchAny for multiple audiences",
        ));
    }
    if issuer.audiences.len() == 1 && !policy.is_empty() && policy != "MatchAny" {
        errors.push(Cause::invalid(
            &policy_path,
            &json!(policy),
            "audienceMatchPolicy must be empty or MatchAny for single audience",
        ));
    }
}

/// The compiled rules of an issuer, where all of them are right.
fn compile_rules(jwt: &Jwt, path: &str, errors: &mut Vec<Cause>) -> Option<Rules> {
    let before = errors.len();
    let mut required = BTreeMap::new();
    let mut claim_rules = Vec::new();
    compile_claim_rules(jwt, path, errors, &mut required, &mut claim_rules);
    let mappings = format!("{path}.claimMappings");
    let username = compile_source(&jwt.claim_mappings.username, &format!("{mappings}.username"), true, errors);
    let groups = compile_source(&jwt.claim_mappings.groups, &format!("{mappings}.groups"), false, errors);
    let uid = compile_uid(&jwt.claim_mappings.uid, &format!("{mappings}.uid"), errors);
    let extra = compile_extra(&jwt.claim_mappings.extra, &mappings, errors);
    let reads = |source: &Option<Source>, claim: &str| match source {
        Some(Source::Expression(expression)) => expression.reads(claim),
        _ => false,
    };
    let mut verified = claim_rules.iter().map(|(rule, _)| rule).chain(extra.iter().map(|(_, value)| value));
    if reads(&username, "email")
        && !reads(&username, "email_verified")
        && !verified.any(|expression: &Expression| expression.reads("email_verified"))
    {
        errors.push(Cause::invalid(
            format!("{mappings}.username.expression"),
            &json!(&jwt.claim_mappings.username.expression),
            "claims.email_verified must be used in claimMappings.username.expression or \
             claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
             claimMappings.username.expression",
        ));
    }
    let user_rules = compile_user_rules(jwt, path, errors);
    if errors.len() > before {
        return None;
    }
    Some(Rules { username: username?, groups, uid, extra, required, claim_rules, user_rules })
}

fn compile_claim_rules(
    jwt: &Jwt,
    path: &str,
    errors: &mut Vec<Cause>,
    required: &mut BTreeMap<String, String>,
    compiled: &mut Vec<(Expression, String)>,
) {
    let mut seen = BTreeSet::new();
    for (at, rule) in jwt.claim_validation_rules.iter().enumerate() {
        let path = format!("{path}.claimValidationRules[{at}]");
        match (rule.claim.as_str(), rule.expression.as_str()) {
            ("", "") => errors.push(Cause::required(&path, "claim or expression is required")),
            (claim, "") => {
                if !rule.message.is_empty() {
                    errors.push(Cause::invalid(
                        format!("{path}.message"),
                        &json!(&rule.message),
                        "may not be specified when claim is set",
                    ));
                }
                if required.insert(claim.to_string(), rule.required_value.clone()).is_some() {
                    errors.push(Cause::duplicate(format!("{path}.claim"), &json!(claim)));
                }
            }
            ("", expression) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    errors.push(Cause::invalid(format!("{path}.requiredValue"), &json!(&rule.required_value), why));
                }
                let path = format!("{path}.expression");
                match seen.insert(expression) {
                    false => errors.push(Cause::duplicate(&path, &json!(expression))),
                    true => match Expression::compile_condition(expression, About::Claims) {
                        Ok(rule_compiled) => compiled.push((rule_compiled, rule.message.clone())),
                        Err(why) => errors.push(Cause::invalid(&path, &json!(expression), &why)),
                    },
                }
            }
            (claim, _) => errors.push(Cause::invalid(&path, &json!(claim), "claim and expression can't both be set")),
        }
    }
}

fn compile_user_rules(jwt: &Jwt, path: &str, errors: &mut Vec<Cause>) -> Vec<(Expression, String)> {
    let mut compiled = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, rule) in jwt.user_validation_rules.iter().enumerate() {
        let path = format!("{path}.userValidationRules[{at}].expression");
        if rule.expression.is_empty() {
            errors.push(Cause::required(&path, ""));
        } else if !seen.insert(&rule.expression) {
            errors.push(Cause::duplicate(&path, &json!(&rule.expression)));
        } else {
            match Expression::compile_condition(&rule.expression, About::User) {
                Ok(expression) => compiled.push((expression, rule.message.clone())),
                Err(why) => errors.push(Cause::invalid(&path, &json!(&rule.expression), &why)),
            }
        }
    }
    compiled
}

fn compile_source(mapping: &Mapping, path: &str, is_required: bool, errors: &mut Vec<Cause>) -> Option<Source> {
    match (mapping.claim.as_str(), mapping.expression.as_str()) {
        ("", "") => {
            if is_required {
                errors.push(Cause::required(path, "claim or expression is required"));
            }
            None
        }
        (claim, "") => {
            if mapping.prefix.is_none() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.push(Cause::required(format!("{path}.prefix"), why));
            }
            Some(Source::Claim { name: claim.to_string(), prefix: mapping.prefix.clone().unwrap_or_default() })
        }
        ("", expression) => {
            if let Some(prefix) = &mapping.prefix {
                errors.push(Cause::invalid(
                    format!("{path}.prefix"),
                    &json!(prefix),
                    "may not be specified when expression is set",
                ));
            }
            compile_expression(expression, &format!("{path}.expression"), errors).map(Source::Expression)
        }
        _ => {
            errors.push(Cause::invalid(path, &json!(""), "claim and expression can't both be set"));
            None
        }
    }
}

fn compile_uid(mapping: &Mapping, path: &str, errors: &mut Vec<Cause>) -> Option<Source> {
    match (mapping.claim.as_str(), mapping.expression.as_str()) {
        ("", "") => None,
        (claim, "") => Some(Source::Claim { name: claim.to_string(), prefix: String::new() }),
        ("", expression) => {
            compile_expression(expression, &format!("{path}.expression"), errors).map(Source::Expression)
        }
        _ => {
            errors.push(Cause::invalid(path, &json!(""), "claim and expression can't both be set"));
            None
        }
    }
}

fn compile_extra(mappings: &[Extra], path: &str, errors: &mut Vec<Cause>) -> Vec<(String, Expression)> {
    let mut compiled = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, mapping) in mappings.iter().enumerate() {
        let path = format!("{path}.extra[{at}]");
        check_extra_key(&mapping.key, &format!("{path}.key"), errors);
        if !seen.insert(&mapping.key) {
            errors.push(Cause::duplicate(format!("{path}.key"), &json!(&mapping.key)));
            continue;
        }
        let path = format!("{path}.valueExpression");
        if mapping.value_expression.is_empty() {
            errors.push(Cause::required(&path, ""));
            continue;
        }
        let expression = compile_expression(&mapping.value_expression, &path, errors);
        compiled.extend(expression.map(|expression| (mapping.key.clone(), expression)));
    }
    compiled
}

fn check_extra_key(key: &str, path: &str, errors: &mut Vec<Cause>) {
    const PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    match key.split_once('/') {
        _ if key.is_empty() => errors.push(Cause::required(path, "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            for why in kinds::validate::dns1123_subdomain(domain) {
                errors.push(Cause::invalid(path, &json!(domain), &why));
            }
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !rest.bytes().all(is_plain) {
                errors.push(Cause::invalid(
                    path,
                    &json!(rest),
                    &format!("Invalid path (regex used for validation is '{PATH}')"),
                ));
            }
        }
        _ => errors.push(Cause::invalid(path, &json!(key), "must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
    if key != key.to_lowercase() {
        errors.push(Cause::invalid(path, &json!(key), "must be lowercase"));
    }
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_reserved = |own: &str| domain == own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.'));
    if is_reserved("kubernetes.io") || is_reserved("k8s.io") {
        let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
        errors.push(Cause::invalid(path, &json!(key), why));
    }
}

fn compile_expression(text: &str, path: &str, errors: &mut Vec<Cause>) -> Option<Expression> {
    Expression::compile(text, About::Claims).map_err(|why| errors.push(Cause::invalid(path, &json!(text), &why))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    /// What a file comes to: the errors, or how many issuers.
    #[track_caller]
    fn check(text: &str, want: &str) {
        let own = ["https://own.example".to_string()];
        let algorithms = ["RS256".to_string()];
        let got = match Configuration::parse(text).and_then(|file| file.compile(&own, &algorithms)) {
            Ok(trusted) => trusted.len().to_string(),
            Err(why) => why,
        };
        assert_eq!(got, want, "{text}");
    }

    /// The same of one issuer, whose audiences, username and so on are right unless they are given.
    #[track_caller]
    fn check_jwt(issuer: &str, rest: &str, want: &str) {
        let mappings =
            if rest.contains("claimMappings") { "" } else { ", claimMappings: {username: {claim: sub, prefix: ''}}" };
        check(&format!("{HEAD}jwt: [{{issuer: {{{issuer}}}{mappings}{rest}}}]"), want);
    }

    const ISSUER: &str = "url: 'https://a.example', audiences: [a]";

    #[test]
    fn files_that_are_right() {
        check(HEAD, "0");
        check(&HEAD.replace("/v1", "/v1beta1"), "0");
        check(r#"{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","jwt":null}"#, "0");
        check(&format!("{HEAD}anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}"), "0");
        check_jwt(ISSUER, "", "1");
        check_jwt(
            "url: 'https://a.example/x', discoveryURL: 'https://b.example', audiences: [a, b], audienceMatchPolicy: MatchAny",
            "",
            "1",
        );
        check_jwt(
            ISSUER,
            ", claimValidationRules: [{claim: hd, requiredValue: a}, {expression: 'claims.hd == \"a\"', message: m}], \
             claimMappings: {username: {expression: claims.sub}, groups: {claim: groups, prefix: 'oidc:'}, uid: {claim: sub}, \
             extra: [{key: example.com/tenant, valueExpression: claims.tenant}]}, \
             userValidationRules: [{expression: '!user.username.startsWith(\"system:\")', message: m}]",
            "1",
        );
    }

    #[test]
    fn files_that_are_no_configuration() {
        check("", "empty config data");
        check("a: b", "Object 'Kind' is missing in '{\"a\":\"b\"}'");
        check(
            "kind: AuthenticationConfiguration",
            "Object 'apiVersion' is missing in '{\"kind\":\"AuthenticationConfiguration\"}'",
        );
        check(
            "kind: Pod\napiVersion: v1",
            "no kind \"Pod\" is registered for version \"v1\"; write kind: AuthenticationConfiguration, apiVersion: \
             apiserver.config.k8s.io/v1",
        );
        check(
            &format!("{HEAD}jwt: [{{isuer: {{}}}}, {{issuer: {{url: x, nosuch: y}}}}]\nmore: 1"),
            "strict decoding error: unknown field \"jwt[0].isuer\", unknown field \"jwt[1].issuer.nosuch\", unknown field \"more\"",
        );
        check(
            &format!("{HEAD}jwt: [{{issuer: {{audiences: a}}}}]"),
            "json: cannot unmarshal string into Go struct field Issuer.jwt.issuer.audiences of type []string",
        );
        check(
            &format!("{HEAD}anonymous: true"),
            "json: cannot unmarshal bool into Go struct field AuthenticationConfiguration.anonymous of type v1.AnonymousAuthConfig",
        );
    }

    #[test]
    fn the_older_flags_are_a_configuration() {
        let flags = OidcFlags {
            issuer_url: Some("https://a.example".into()),
            client_id: Some("kubernetes".into()),
            ..OidcFlags::default()
        };
        let prefix = |flags: OidcFlags| {
            let (configuration, _) = flags.to_configuration().unwrap();
            let username = configuration.jwt[0].claim_mappings.username.clone();
            format!("{} {:?}", username.claim, username.prefix.unwrap())
        };
        assert_eq!(prefix(flags.clone()), "sub \"https://a.example#\"");
        let named = |claim: &str, prefix: &str| OidcFlags {
            username_claim: Some(claim.into()),
            username_prefix: Some(prefix.into()),
            ..flags.clone()
        };
        assert_eq!(prefix(named("email", "")), "email \"\"");
        assert_eq!(prefix(named("name", "-")), "name \"\"");
        assert_eq!(prefix(named("name", "oidc:")), "name \"oidc:\"");
        let more = OidcFlags {
            groups_claim: Some("roles".into()),
            required_claims: vec!["hd=a.example".into()],
            signing_algorithms: vec!["ES256".into()],
            ..flags.clone()
        };
        let (configuration, algorithms) = more.to_configuration().unwrap();
        assert_eq!(configuration.jwt[0].claim_mappings.groups.prefix.as_deref(), Some(""));
        assert_eq!(configuration.jwt[0].claim_validation_rules[0].required_value, "a.example");
        assert_eq!(algorithms, ["ES256"]);
        let refused = |flags: OidcFlags| flags.to_configuration().err().unwrap();
        assert_eq!(
            refused(OidcFlags { client_id: None, ..flags.clone() }),
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
        );
        assert_eq!(
            refused(OidcFlags { signing_algorithms: vec!["HS256".into()], ..flags.clone() }),
            "oidc: unsupported signing alg: \"HS256\""
        );
        assert!(refused(OidcFlags { required_claims: vec!["hd".into()], ..flags }).contains("malformed pair"));
    }

    #[test]
    fn flags_and_file_do_not_contradict_each_other() {
        let folder = std::env::temp_dir().join(format!("kemudi-authn-{}", std::process::id()));
        std::fs::write(&folder, format!("{HEAD}anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}")).unwrap();
        let options = Options { config_file: Some(folder.clone()), ..Options::default() };
        let load = |options: &Options| load(options, &[]).map(|loaded| loaded.anonymous);
        let anonymous = load(&options).unwrap();
        assert!(anonymous.is_allowed("/livez") && !anonymous.is_allowed("/livez/ping") && !anonymous.is_allowed("/"));
        let both = Options { anonymous: Some(true), ..options.clone() };
        assert_eq!(
            load(&both).unwrap_err(),
            "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in authentication \
             configuration file"
        );
        let both = Options { oidc: Some(OidcFlags::default()), ..options };
        assert_eq!(load(&both).unwrap_err(), "authentication-config file and oidc-* flags are mutually exclusive");
        std::fs::remove_file(&folder).unwrap();
        assert!(
            load(&Options { config_file: Some(folder), ..Options::default() }).unwrap_err().contains("failed to load")
        );
        assert!(load(&Options::default()).unwrap().is_allowed("/anything"));
        assert!(!load(&Options { anonymous: Some(false), ..Options::default() }).unwrap().is_allowed("/livez"));
    }

    #[test]
    fn issuers_that_are_wrong() {
        check_jwt(
            "",
            "",
            "[jwt[0].issuer.url: Required value, jwt[0].issuer.audiences: Required value: at least one \
             jwt[0].issuer.audiences is required]",
        );
        for (url, why) in [
            ("http://a.example", "URL scheme must be https"),
            ("a.example", "URL scheme must be https"),
            ("https://u:p@a.example", "URL must not contain a username or password"),
            ("https://a.example?x=y", "URL must not contain a query"),
            ("https://a.example#x", "URL must not contain a fragment"),
            ("https://own.example", "URL must not overlap with disallowed issuers: [https://own.example]"),
        ] {
            let issuer = format!("url: '{url}', audiences: [a]");
            check_jwt(&issuer, "", &format!("jwt[0].issuer.url: Invalid value: \"{url}\": {why}"));
        }
        check_jwt(
            "url: 'https://a.example', discoveryURL: 'https://a.example/', audiences: [a]",
            "",
            "jwt[0].issuer.discoveryURL: Invalid value: \"https://a.example/\": discoveryURL must be different from URL",
        );
        check_jwt(
            "url: 'https://a.example', audiences: [a, a, '']",
            "",
            "[jwt[0].issuer.audiences[1]: Duplicate value: \"a\", jwt[0].issuer.audiences[2]: Required value, \
             jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences]",
        );
        check_jwt(
            &format!("{ISSUER}, audienceMatchPolicy: MatchAll"),
            "",
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"MatchAll\": audienceMatchPolicy must be empty or MatchAny for \
             single audience",
        );
        check_jwt(
            &format!("{ISSUER}, certificateAuthority: x"),
            "",
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA \
             certificates",
        );
        let one = format!("{{issuer: {{{ISSUER}}}, claimMappings: {{username: {{claim: sub, prefix: ''}}}}}}");
        check(&format!("{HEAD}jwt: [{one}, {one}]"), "jwt[1].issuer.url: Duplicate value: \"https://a.example\"");
        check(&format!("{HEAD}jwt: [{}]", vec![one; 65].join(",")), "jwt: Too many: 65: must have at most 64 items");
        check(
            &format!("{HEAD}anonymous: {{conditions: [{{path: /livez}}]}}"),
            "anonymous.conditions: Invalid value: [{\"path\":\"/livez\"}]: enabled should be set to true when conditions are defined",
        );
    }

    #[test]
    fn rules_and_mappings_that_are_wrong() {
        check_jwt(
            ISSUER,
            ", claimMappings: {}",
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        );
        check_jwt(
            ISSUER,
            ", claimMappings: {username: {claim: sub}}",
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an \
             empty string to disable prefixing",
        );
        check_jwt(
            ISSUER,
            ", claimMappings: {username: {claim: a, expression: b}, groups: {expression: claims.g, prefix: x}, uid: {claim: a, expression: b}}",
            "[jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set, \
             jwt[0].claimMappings.groups.prefix: Invalid value: \"x\": may not be specified when expression is set, \
             jwt[0].claimMappings.uid: Invalid value: \"\": claim and expression can't both be set]",
        );
        check_jwt(
            ISSUER,
            ", claimMappings: {username: {expression: claims.email}}",
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in \
             claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression \
             when claims.email is used in claimMappings.username.expression",
        );
        check_jwt(
            ISSUER,
            ", claimMappings: {username: {expression: claims.email}}, claimValidationRules: [{expression: claims.email_verified == true}]",
            "1",
        );
        for (key, why) in [
            ("", "Required value"),
            ("tenant", "Invalid value: \"tenant\": must be a domain-prefixed path (such as \"acme.io/foo\")"),
            ("a.example/X", "Invalid value: \"a.example/X\": must be lowercase"),
            (
                "x.k8s.io/a",
                "Invalid value: \"x.k8s.io/a\": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
            ),
        ] {
            let rest = format!(
                ", claimMappings: {{username: {{claim: sub, prefix: ''}}, extra: [{{key: '{key}', valueExpression: claims.a}}]}}"
            );
            check_jwt(ISSUER, &rest, &format!("jwt[0].claimMappings.extra[0].key: {why}"));
        }
        check_jwt(
            ISSUER,
            ", claimValidationRules: [{}, {claim: a, expression: b}, {claim: c, message: m}, {claim: c}, {expression: 'true', requiredValue: v}, {expression: 'true'}, {expression: claims.x}]",
            "[jwt[0].claimValidationRules[0]: Required value: claim or expression is required, \
             jwt[0].claimValidationRules[1]: Invalid value: \"a\": claim and expression can't both be set, \
             jwt[0].claimValidationRules[2].message: Invalid value: \"m\": may not be specified when claim is set, \
             jwt[0].claimValidationRules[3].claim: Duplicate value: \"c\", \
             jwt[0].claimValidationRules[4].requiredValue: Invalid value: \"v\": may not be specified when expression is set, \
             jwt[0].claimValidationRules[5].expression: Duplicate value: \"true\", \
             jwt[0].claimValidationRules[6].expression: Invalid value: \"claims.x\": must evaluate to bool]",
        );
        check_jwt(
            ISSUER,
            ", userValidationRules: [{message: m}, {expression: 'user.username != \"\"'}, {expression: 'user.username != \"\"'}]",
            "[jwt[0].userValidationRules[0].expression: Required value, jwt[0].userValidationRules[2].expression: Duplicate \
             value: \"user.username != \\\"\\\"\"]",
        );
    }
}
