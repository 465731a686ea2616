//! What files and flags come to, beside what kube-apiserver 1.37 says of the same.

use super::*;

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
/// What the text of a file that cannot be read begins with.
const FAILED: &str = "failed to load AuthorizationConfiguration from file: ";

/// What a file comes to: the errors, or the authorizers.
#[track_caller]
fn check(text: &str, want: &str) {
    let got = match Configuration::parse(text, &BTreeSet::new()) {
        Ok(found) => {
            let shown = |one: &Authorizer| format!("{} {}", one.kind.as_str(), one.name);
            found.authorizers.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
        Err(why) => why,
    };
    assert_eq!(got, want, "{text}");
}

/// The same of a list of authorizers.
#[track_caller]
fn check_list(authorizers: &str, want: &str) {
    check(&format!("{HEAD}authorizers: [{authorizers}]"), want);
}

/// A webhook that is right, with other fields: `timeout: 5s`, or `timeout: ` to leave one out.
fn webhook(others: &[&str]) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let connection = format!("connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {file}}}");
    let right = ["timeout: 3s", "subjectAccessReviewVersion: v1", "failurePolicy: Deny", &connection];
    let name = |field: &str| field.split(':').next().unwrap_or_default().to_string();
    let kept = right.into_iter().filter(|field| !others.iter().any(|other| name(other) == name(field)));
    let given = others.iter().copied().filter(|field| !field.ends_with(": "));
    format!("{{{}}}", kept.chain(given).collect::<Vec<_>>().join(", "))
}

#[track_caller]
fn check_webhook(others: &[&str], want: &str) {
    let want = match want {
        "" => "Webhook hook".to_string(),
        want => want.replace("@.", "authorizers[0]."),
    };
    check_list(&format!("{{type: Webhook, name: hook, webhook: {}}}", webhook(others)), &want);
}

/// What becomes of match conditions.
#[track_caller]
fn check_conditions(expressions: &[&str], want: &str) {
    let list: Vec<String> =
        expressions.iter().map(|text| format!("{{expression: '{}'}}", text.replace('\'', "''"))).collect();
    let conditions = format!("matchConditions: [{}]", list.join(", "));
    check_webhook(&["matchConditionSubjectAccessReviewVersion: v1", &conditions], want);
}

/// What one match condition does not compile for.
#[track_caller]
fn check_condition(expression: &str, want: &str) {
    let want = match want {
        "" => String::new(),
        want => format!("@.matchConditions[0].expression: Invalid value: {}: {want}", go::quote(expression)),
    };
    check_conditions(&[expression], &want);
}

#[test]
fn files_that_are_right() {
    check_list("{type: Node, name: node}, {type: RBAC, name: rbac}", "Node node, RBAC rbac");
    for version in ["/v1beta1", "/v1alpha1"] {
        check(&format!("{}authorizers: [{{type: RBAC, name: rbac}}]", HEAD.replace("/v1", version)), "RBAC rbac");
    }
    check(
        r#"{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthorizationConfiguration","authorizers":[{"type":"AlwaysDeny","name":"alwaysdeny"}]}"#,
        "AlwaysDeny alwaysdeny",
    );
    let hook = webhook(&[]);
    check_list(
        &format!(
            "{{type: Webhook, name: a, webhook: {hook}}}, {{type: RBAC, name: rbac}}, {{type: Webhook, name: b.c, webhook: {hook}}}"
        ),
        "Webhook a, RBAC rbac, Webhook b.c",
    );
    check_webhook(&[], "");
    check_webhook(&["timeout: 1.5s", "authorizedTTL: 0s", "cacheAuthorizedRequests: false"], "");
}

#[test]
fn files_that_are_no_configuration() {
    let failed = |text: &str, why: &str| check(text, &format!("{FAILED}{why}"));
    let required = "authorizers: Required value: at least one authorization mode must be defined";
    check("", required);
    check(HEAD, required);
    check(&format!("{HEAD}authorizers: null"), required);
    failed("a: b", "Object 'Kind' is missing in 'a: b'");
    failed("kind: AuthorizationConfiguration", "Object 'apiVersion' is missing in 'kind: AuthorizationConfiguration'");
    failed(
        "kind: Pod\napiVersion: v1",
        "no kind \"Pod\" is registered for version \"v1\"; write kind: AuthorizationConfiguration, apiVersion: \
         apiserver.config.k8s.io/v1",
    );
    failed(
        "nonsense",
        r#"couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#,
    );
    failed("{", "couldn't get version/kind; json parse error: unexpected end of JSON input");
    failed(&format!("{HEAD}authorizers: []\nmore: 1"), "strict decoding error: unknown field \"more\"");
    failed(
        &format!("{HEAD}authorizers: [{{type: RBAC, name: rbac}}]\nauthorizers: []"),
        "strict decoding error: yaml: unmarshal errors:\n  line 4: key \"authorizers\" already set in map",
    );
    failed(
        &format!(
            "{HEAD}authorizers: [{{typ: RBAC, name: rbac}}, {{type: Webhook, name: a, webhook: {{nosuch: 1, connectionInfo: {{x: y}}, matchConditions: [{{expr: 1}}]}}}}]"
        ),
        "strict decoding error: unknown field \"authorizers[0].typ\", unknown field \
         \"authorizers[1].webhook.connectionInfo.x\", unknown field \"authorizers[1].webhook.matchConditions[0].expr\", unknown \
         field \"authorizers[1].webhook.nosuch\"",
    );
    for (authorizers, what) in [
        (
            "authorizers: {}",
            "object into Go struct field AuthorizationConfiguration.authorizers of type []v1.AuthorizerConfiguration",
        ),
        (
            "authorizers: [x]",
            "string into Go struct field AuthorizationConfiguration.authorizers of type v1.AuthorizerConfiguration",
        ),
        (
            "authorizers: [{type: 1}]",
            "number into Go struct field AuthorizerConfiguration.authorizers.type of type string",
        ),
        (
            "authorizers: [{type: Webhook, name: a, webhook: []}]",
            "array into Go struct field AuthorizerConfiguration.authorizers.webhook of type v1.WebhookConfiguration",
        ),
        (
            "authorizers: [{type: Webhook, name: a, webhook: {timeout: 3}}]",
            "number into Go struct field WebhookConfiguration.authorizers.webhook.timeout of type string",
        ),
        (
            "authorizers: [{type: Webhook, name: a, webhook: {cacheAuthorizedRequests: 'yes'}}]",
            "string into Go struct field WebhookConfiguration.authorizers.webhook.cacheAuthorizedRequests of type bool",
        ),
    ] {
        failed(&format!("{HEAD}{authorizers}"), &format!("json: cannot unmarshal {what}"));
    }
    failed(
        &format!("{HEAD}authorizers: [{{type: Webhook, name: a, webhook: {{timeout: soon}}}}]"),
        "time: invalid duration \"soon\"",
    );
}

#[test]
fn authorizers_that_are_wrong() {
    check_list("{name: a}", "authorizers[0].type: Required value");
    check_list(
        "{type: Nosuch, name: a}",
        "authorizers[0].type: Unsupported value: \"Nosuch\": supported values: \"ABAC\", \"AlwaysAllow\", \"AlwaysDeny\", \
         \"Node\", \"RBAC\", \"Webhook\"",
    );
    check_list("{type: RBAC, name: rbac}, {type: RBAC, name: rbac}", "authorizers[1].type: Duplicate value: \"RBAC\"");
    check_list("{type: RBAC}", "authorizers[0].name: Required value");
    check_list(
        "{type: RBAC, name: 'A b'}",
        "authorizers[0].name: Invalid value: \"A b\": authorizer name is invalid: a lowercase RFC 1123 subdomain must consist \
         of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
         'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    );
    check_list(
        "{type: RBAC, name: other}, {type: Node, name: some}",
        "[expected name rbac for authorizer RBAC instead of other, expected name node for authorizer Node instead of some]",
    );
    check_list(
        "{type: RBAC, name: rbac, webhook: {}}",
        "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
    );
    check_list("{type: Webhook, name: a}", "authorizers[0].webhook: Required value: required when type=Webhook");
    let hook = webhook(&[]);
    check_list(
        &format!("{{type: Webhook, name: rbac, webhook: {hook}}}, {{type: RBAC, name: rbac}}"),
        "authorizers[1].name: Duplicate value: \"rbac\"",
    );
    let many = (0..65).map(|at| format!("{{type: Webhook, name: w{at}, webhook: {hook}}}"));
    check_list(&many.collect::<Vec<_>>().join(", "), "authorizers: Too many: 65: must have at most 64 items");
}

#[test]
fn nothing_turns_authorization_off() {
    let off = "it would turn authorization off, which nothing here does; leave it out, and bind who may do everything to the \
               ClusterRole cluster-admin";
    check_list(
        "{type: AlwaysAllow, name: alwaysallow}",
        &format!("authorizers[0].type: Invalid value: \"AlwaysAllow\": {off}"),
    );
    check_list(
        "{type: ABAC, name: abac}, {type: RBAC, name: rbac}",
        "authorizers[0].type: Invalid value: \"ABAC\": it is not supported here; write its policies as roles and bindings, and \
         name RBAC instead",
    );
    check_flags(&["AlwaysAllow"], |options| options, &format!("authorization-mode \"AlwaysAllow\": {off}"));
}

#[test]
fn webhooks_that_are_wrong() {
    check_list(
        "{type: Webhook, name: a, webhook: {}}",
        "[authorizers[0].timeout: Required value, authorizers[0].subjectAccessReviewVersion: Required value, \
         authorizers[0].failurePolicy: Required value, authorizers[0].connectionInfo.type: Required value]",
    );
    check_webhook(&["timeout: 0s"], "@.timeout: Required value");
    for time in ["31s", "-1s", "1m30s"] {
        let want = format!("@.timeout: Invalid value: \"{time}\": must be > 0s and <= 30s");
        check_webhook(&[&format!("timeout: {time}")], &want);
    }
    check_webhook(
        &["authorizedTTL: -1s", "unauthorizedTTL: -5m"],
        "[@.authorizedTTL: Invalid value: \"-1s\": must be > 0s, @.unauthorizedTTL: Invalid value: \"-5m0s\": must be > 0s]",
    );
    check_webhook(&["subjectAccessReviewVersion: "], "@.subjectAccessReviewVersion: Required value");
    check_webhook(
        &["subjectAccessReviewVersion: v2"],
        "@.subjectAccessReviewVersion: Unsupported value: \"v2\": supported values: \"v1\", \"v1beta1\"",
    );
    check_webhook(
        &["matchConditionSubjectAccessReviewVersion: v1beta1"],
        "@.matchConditionSubjectAccessReviewVersion: Unsupported value: \"v1beta1\": supported values: \"v1\"",
    );
    check_webhook(
        &["matchConditions: [{expression: 'true'}]"],
        "@.matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
    );
    check_webhook(&["failurePolicy: "], "@.failurePolicy: Required value");
    check_webhook(
        &["failurePolicy: Allow"],
        "@.failurePolicy: Unsupported value: \"Allow\": supported values: \"NoOpinion\", \"Deny\"",
    );
}

#[test]
fn connections_that_are_wrong() {
    let connection = |info: &str, want: &str| {
        check_webhook(&[&format!("connectionInfo: {info}")], &format!("@.connectionInfo.{want}"));
    };
    connection("", "type: Required value");
    connection(
        "{type: InClusterConfig, kubeConfigFile: /x}",
        "kubeConfigFile: Invalid value: \"/x\": can only be set when type=KubeConfigFile",
    );
    connection(
        "{type: InClusterConfig}",
        "type: Invalid value: \"InClusterConfig\": an API server has no cluster around it whose API server it could ask; write \
         type: KubeConfigFile and kubeConfigFile: FILE",
    );
    connection("{type: KubeConfigFile}", "kubeConfigFile: Required value");
    connection("{type: KubeConfigFile, kubeConfigFile: ''}", "kubeConfigFile: Required value");
    connection(
        "{type: KubeConfigFile, kubeConfigFile: a/b}",
        "kubeConfigFile: Invalid value: \"a/b\": must be an absolute path",
    );
    connection(
        "{type: KubeConfigFile, kubeConfigFile: /nosuch/file}",
        "kubeConfigFile: Invalid value: \"/nosuch/file\": error loading file: stat /nosuch/file: no such file or directory",
    );
    connection(
        "{type: KubeConfigFile, kubeConfigFile: /}",
        "kubeConfigFile: Invalid value: \"/\": must be a regular file",
    );
    connection(
        "{type: Other}",
        "type: Unsupported value: {\"Type\":\"Other\",\"KubeConfigFile\":null}: supported values: \"InClusterConfig\", \
         \"KubeConfigFile\"",
    );
    connection(
        "{type: Other, kubeConfigFile: /x}",
        "type: Unsupported value: {\"Type\":\"Other\",\"KubeConfigFile\":\"/x\"}: supported values: \"InClusterConfig\", \
         \"KubeConfigFile\"",
    );
}

#[test]
fn match_conditions_that_are_right() {
    for expression in [
        "true",
        "request.user == 'x'",
        "request.user in request.groups",
        "request.?user.hasValue()",
        "request.user.matches('^a')",
        "request.extra.exists(k, request.extra[k].exists(v, v == 'x'))",
        "request.extra.k == ['a']",
        "has(request.resourceAttributes) && request.resourceAttributes.namespace == 'kube-system'",
        "request.resourceAttributes != null",
        "!has(request.nonResourceAttributes) || !request.nonResourceAttributes.path.startsWith('/healthz')",
        "request.resourceAttributes.fieldSelector.requirements.all(r, r.key in ['a'] && r.operator == 'In')",
        "request.resourceAttributes.name == request.user.split(':')[3]",
        "request.resourceAttributes.?labelSelector.?requirements.orValue([]).size() == 7",
        "string(1) == '1'",
        "request.groups.size() > 1 ? true : request.uid == ''",
        "request.groups.map(g, g + 'x').exists(g, g == 'ax')",
        "request.groups + ['a'] == []",
        "size(request.extra) == 0 || 1 + 2 * 3 == 7",
    ] {
        check_condition(expression, "");
    }
}

#[test]
fn match_conditions_that_are_wrong() {
    check_conditions(&[""], "@.matchConditions[0].expression: Required value");
    check_conditions(&[" "], "@.matchConditions[0].expression: Required value");
    check_conditions(&["true", "true"], "@.matchConditions[1].expression: Duplicate value: \"true\"");
    let many: Vec<String> = (0..65).map(|at| format!("true || {at} == 1")).collect();
    check_conditions(
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
        "@.matchConditions: Too many: 65: must have at most 64 items",
    );
    for (expression, of) in [
        ("request.user", "string"),
        ("request.groups", "list(string)"),
        ("request.extra", "map(string, list(string))"),
        ("request.extra['x']", "list(string)"),
        ("request.extra.k", "list(string)"),
        ("request", "kubernetes.SubjectAccessReviewSpec"),
        ("request.resourceAttributes", "kubernetes.ResourceAttributes"),
        ("request.nonResourceAttributes", "kubernetes.NonResourceAttributes"),
        ("request.resourceAttributes.fieldSelector", "kubernetes.FieldSelectorAttributes"),
        ("request.resourceAttributes.labelSelector.requirements", "list(kubernetes.SelectorRequirement)"),
        ("request.resourceAttributes.fieldSelector.requirements[0]", "kubernetes.SelectorRequirement"),
        ("request.resourceAttributes.fieldSelector.requirements[0].values", "list(string)"),
        ("1", "int"),
        ("-1", "int"),
        ("1.5", "double"),
        ("1u", "uint"),
        ("null", "null_type"),
        ("'a'", "string"),
        ("b'a'", "bytes"),
        ("['a','b']", "list(string)"),
        ("{'a': 1}", "map(string, int)"),
        ("[]", "list(dyn)"),
        ("{}", "map(dyn, dyn)"),
        ("dyn(true)", "dyn"),
        ("true ? 1 : 2", "int"),
        ("request.groups.map(g, g + 'x')", "list(string)"),
        ("request.groups.filter(g, g != 'x')", "list(string)"),
        ("request.groups.size()", "int"),
        ("size(request.groups)", "int"),
        ("request.groups[0]", "string"),
        ("request.user.split(',')", "list(string)"),
        ("request.user + 'x'", "string"),
        ("request.?user", "optional_type(string)"),
        ("request.?user.orValue('')", "string"),
        ("type(request.user)", "type(string)"),
        ("int('1')", "int"),
    ] {
        check_condition(expression, &format!("must evaluate to bool but got {of}"));
    }
}

#[test]
fn match_conditions_that_do_not_compile() {
    for (expression, column, what) in [
        ("request.nosuch == 'x'", 8, "undefined field 'nosuch'"),
        ("request.resourceAttributes.nosuch == 'x'", 27, "undefined field 'nosuch'"),
        ("has(request.nosuch)", 4, "undefined field 'nosuch'"),
        ("request.resourceAttributes.?nosuch.orValue('') == 'x'", 27, "undefined field 'nosuch'"),
        ("request.resourceAttributes.fieldSelector.requirements[0].nosuch == 'a'", 57, "undefined field 'nosuch'"),
        ("nosuch == 'x'", 1, "undeclared reference to 'nosuch' (in container '')"),
        ("claims.x == 'x'", 1, "undeclared reference to 'claims' (in container '')"),
        ("nosuch(1)", 7, "undeclared reference to 'nosuch' (in container '')"),
        ("request.user == 1", 14, "found no matching overload for '_==_' applied to '(string, int)'"),
        ("request.groups == 'x'", 16, "found no matching overload for '_==_' applied to '(list(string), string)'"),
        ("'x' in request.user", 5, "found no matching overload for '@in' applied to '(string, string)'"),
        ("request.user + 1 == 'x'", 14, "found no matching overload for '_+_' applied to '(string, int)'"),
        ("!request.user", 1, "found no matching overload for '!_' applied to '(string)'"),
        ("request.user && true", 8, "expected type 'bool' but found 'string'"),
        ("request.user.startsWith(1)", 24, "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("true ? 1 : 'a'", 6, "found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
        ("[1,'a']", 4, "expected type 'int' but found 'string'"),
    ] {
        let dots = ".".repeat(column - 1);
        check_condition(
            expression,
            &format!("compilation failed: ERROR: <input>:1:{column}: {what}\n | {expression}\n | {dots}^"),
        );
    }
}

/// What flags come to: the errors, or the authorizers.
#[track_caller]
fn check_flags(modes: &[&str], more: impl Fn(Options) -> Options, want: &str) {
    let modes = Some(modes.iter().map(ToString::to_string).collect());
    let got = match load(&more(Options { modes, ..Options::default() })) {
        Ok(Some(Loaded { configuration, .. })) => {
            let shown = |one: &Authorizer| format!("{} {}", one.kind.as_str(), one.name);
            configuration.authorizers.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
        Ok(None) => "nothing".into(),
        Err(why) => why,
    };
    assert_eq!(got, want);
}

#[test]
fn the_older_flags_are_a_configuration() {
    let plain = |options| options;
    let with_file = |options| Options { webhook_config_file: Some("/x".into()), ..options };
    check_flags(&["Node", "RBAC"], plain, "Node node, RBAC rbac");
    check_flags(&["RBAC", "Webhook"], with_file, "RBAC rbac, Webhook default");
    check_flags(&["AlwaysDeny"], plain, "AlwaysDeny alwaysdeny");
    check_flags(&["Webhook"], plain, "authorization-mode Webhook's authorization config file not passed");
    check_flags(&["RBAC"], with_file, "cannot specify --authorization-webhook-config-file without mode Webhook");
    check_flags(&[], plain, "at least one authorization-mode must be passed");
    check_flags(
        &["RBAC", "rbac", "RBAC"],
        plain,
        "[authorization-mode \"rbac\" is not a valid mode, authorization-mode [\"RBAC\" \"rbac\" \"RBAC\"] has mode specified \
         more than once]",
    );
    check_flags(
        &["Webhook"],
        |options| Options { webhook_version: Some("v2".into()), ..with_file(options) },
        "unsupported webhook authorizer version \"v2\", supported versions are \"v1\", \"v1beta1\"",
    );
    check_flags(
        &["RBAC"],
        |options| Options { config_file: Some("/x".into()), ..options },
        "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined",
    );
    assert!(load(&Options::default()).unwrap().is_none());
    let defaults =
        Options { modes: Some(vec!["Webhook".into()]), webhook_config_file: Some("/x".into()), ..Options::default() };
    let webhook = load(&defaults).unwrap().unwrap().configuration.authorizers.remove(0).webhook.unwrap();
    let times = (webhook.timeout, webhook.authorized_for, webhook.unauthorized_for);
    assert_eq!(times, (Duration::from_secs(30), Duration::from_secs(300), Duration::from_secs(30)));
    assert_eq!((webhook.version.as_str(), webhook.failure_policy), ("v1beta1", FailurePolicy::NoOpinion));
}

#[test]
fn what_is_left_out_has_a_default_and_what_was_there_must_stay() {
    let parse = |text: &str, required: &[Type]| Configuration::parse(text, &required.iter().copied().collect());
    let text = format!("{HEAD}authorizers: [{{type: Webhook, name: hook, webhook: {}}}]", webhook(&[]));
    let hook = parse(&text, &[]).unwrap().authorizers.remove(0).webhook.unwrap();
    assert_eq!((hook.authorized_for, hook.unauthorized_for), (AUTHORIZED_TTL, UNAUTHORIZED_TTL));
    let off = webhook(&["cacheAuthorizedRequests: false", "unauthorizedTTL: 2m"]);
    let off = format!("{HEAD}authorizers: [{{type: Webhook, name: hook, webhook: {off}}}]");
    let hook = parse(&off, &[]).unwrap().authorizers.remove(0).webhook.unwrap();
    assert_eq!((hook.authorized_for, hook.unauthorized_for), (Duration::ZERO, Duration::from_secs(120)));
    let why = parse(&text, &[Type::Node, Type::Rbac]).err().unwrap();
    assert_eq!(why, "missing required types: [Node RBAC]");
    assert!(parse(&text, &[]).unwrap() == parse(&format!("{text}\n# a remark\n"), &[]).unwrap());
}
