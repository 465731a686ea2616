//! Bodies of all kinds of wrong, and what becomes of them.

use kinds::decode::{DEPTH_MAX, decode, normalize, type_meta};

/// The object, then what strict validation would say; or the error.
fn read(group: &str, version: &str, plural: &str, body: &str) -> String {
    let registry = kinds::builtin();
    let kind = registry.kind(group, version, plural).expect("a built-in kind");
    match decode(&kind.schema, kind.root, body.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(decoded) => [decoded.object.to_string()].into_iter().chain(decoded.strict).collect::<Vec<_>>().join(", "),
    }
}

#[track_caller]
fn check(plural: &str, body: &str, expected: &str) {
    assert_eq!(read("", "v1", plural, body), expected, "{body}");
}

#[test]
fn fields_come_out_in_gos_order_and_empty_ones_are_left_out() {
    check(
        "configmaps",
        r#"{"data":{"b":"2","a":"1"},"metadata":{"labels":{},"name":"x","generation":0},"kind":"ConfigMap","apiVersion":"v1"}"#,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"data":{"a":"1","b":"2"}}"#,
    );
    check("configmaps", "null", r#"{"metadata":{}}"#);
    check(
        "pods",
        r#"{"spec":{"containers":[{"name":"c","image":"","tty":false,"securityContext":{},"stdin":true}],"hostNetwork":false,"terminationGracePeriodSeconds":0}}"#,
        r#"{"metadata":{},"spec":{"containers":[{"name":"c","resources":{},"securityContext":{},"stdin":true}],"terminationGracePeriodSeconds":0},"status":{}}"#,
    );
    check("pods", "{}", r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#);
    // An empty list that was given is somebody's until the object is stored: it can be owned.
    let slice = read("discovery.k8s.io", "v1", "endpointslices", r#"{"endpoints":[],"addressType":"IPv4"}"#);
    assert_eq!(slice, r#"{"metadata":{},"addressType":"IPv4","endpoints":[],"ports":null}"#);
    let registry = kinds::builtin();
    let kind = registry.kind("discovery.k8s.io", "v1", "endpointslices").expect("a built-in kind");
    let stored = kind.tidy(serde_json::from_str(&slice).expect("JSON")).expect("of its kind");
    assert_eq!(stored.to_string(), r#"{"metadata":{},"addressType":"IPv4","endpoints":null,"ports":null}"#);
    assert_eq!(
        read("", "v1", "events", r#"{"involvedObject":{}}"#),
        r#"{"metadata":{},"involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":""}"#
    );
}

#[test]
fn what_an_object_does_not_say_of_its_kind_stands_in_front() {
    let registry = kinds::builtin();
    let kind = registry.kind("", "v1", "configmaps").expect("a built-in kind");
    let check = |body: &str| {
        let read = kind.decode(body.as_bytes()).expect("a ConfigMap");
        assert_eq!(read.object.to_string(), r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}"#, "{body}");
    };
    check("{}");
    check(r#"{"kind":"ConfigMap"}"#);
    check(r#"{"apiVersion":"v1"}"#);
}

#[test]
fn unknown_and_duplicate_fields_are_dropped_and_told_of() {
    check(
        "pods",
        r#"{"metadata":{"name":"a","nope":true},"spec":{"containers":[{"name":"c","imagee":"x"}],"bogus":1},"extra":{"a":"b"}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","resources":{}}]},"status":{}}, unknown field "metadata.nope", unknown field "spec.containers[0].imagee", unknown field "spec.bogus", unknown field "extra""#,
    );
    check(
        "configmaps",
        r#"{"metadata":{"name":"x","name":"y","foo":1,"foo":2},"data":{"a":"1","a":"2"},"foo":1,"foo":2,"Data":{}}"#,
        r#"{"metadata":{"name":"y"},"data":{"a":"2"}}, duplicate field "metadata.name", unknown field "metadata.foo", duplicate field "data.a", unknown field "foo", unknown field "Data""#,
    );
}

#[test]
fn a_field_given_as_null_and_again_is_a_duplicate() {
    check(
        "configmaps",
        r#"{"metadata":null,"metadata":{"name":"x"}}"#,
        r#"{"metadata":{"name":"x"}}, duplicate field "metadata""#,
    );
    check(
        "configmaps",
        r#"{"metadata":{"name":"x"},"metadata":null}"#,
        r#"{"metadata":{"name":"x"}}, duplicate field "metadata""#,
    );
    check("configmaps", r#"{"immutable":true,"immutable":null}"#, r#"{"metadata":{}}, duplicate field "immutable""#);
}

#[test]
fn quantities_are_written_in_canonical_form_wherever_they_are() {
    let check = |given: &str, written: &str| {
        let body = format!(r#"{{"storageClassName":"c","capacity":{given}}}"#);
        let want = format!(r#"{{"metadata":{{}},"storageClassName":"c","capacity":"{written}"}}"#);
        assert_eq!(read("storage.k8s.io", "v1", "csistoragecapacities", &body), want);
    };
    check(r#""1000m""#, "1");
    check(r#""0.5Gi""#, "512Mi");
    check(r#""1e-1""#, "100e-3");
    check("0.5", "500m");
}

#[test]
fn wrong_types_are_named_as_go_names_them() {
    let check = |body, error: &str| check("configmaps", body, error);
    check(
        r#"{"metadata":"x"}"#,
        "json: cannot unmarshal string into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
    );
    check(
        r#"{"metadata":{"name":1}}"#,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
    );
    check(
        r#"{"metadata":{"labels":[]}}"#,
        "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
    );
    check(
        r#"{"metadata":{"labels":{"a":1}}}"#,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    check(
        r#"{"immutable":"yes"}"#,
        "json: cannot unmarshal string into Go struct field ConfigMap.immutable of type bool",
    );
    check(r#"{"data":{"a":{}}}"#, "json: cannot unmarshal object into Go struct field ConfigMap.data of type string");
    check(r#"{"binaryData":{"a":"%%"}}"#, "illegal base64 data at input byte 0");
    check(r#"{"binaryData":{"a":[104,105],"b":[]}}"#, r#"{"metadata":{},"binaryData":{"a":"aGk=","b":""}}"#);
    check(
        r#"{"binaryData":{"a":[1,256]}}"#,
        "json: cannot unmarshal number 256 into Go struct field ConfigMap.binaryData of type uint8",
    );
    check(
        r#"{"binaryData":{"a":["b"]}}"#,
        "json: cannot unmarshal string into Go struct field ConfigMap.binaryData of type uint8",
    );
    check(r#"[]"#, "json: cannot unmarshal array into Go value of type v1.ConfigMap");
    check(
        r#"{"metadata":{"creationTimestamp":"soon"}}"#,
        r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
    );
    let deployment = |body| read("apps", "v1", "deployments", body);
    assert_eq!(
        deployment(r#"{"spec":{"replicas":"3"}}"#),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        deployment(r#"{"spec":{"replicas":1.5}}"#),
        "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    // What Go inlines has its name in the path, as has all that is inside.
    let volume = |source: &str| read("", "v1", "pods", &format!(r#"{{"spec":{{"volumes":[{{{source}}}]}}}}"#));
    assert_eq!(
        volume(r#""hostPath":"x""#),
        "json: cannot unmarshal string into Go struct field Volume.spec.volumes.VolumeSource.hostPath of type v1.HostPathVolumeSource"
    );
    assert_eq!(
        volume(r#""configMap":{"name":1}"#),
        "json: cannot unmarshal number into Go struct field ConfigMapVolumeSource.spec.volumes.VolumeSource.configMap.LocalObjectReference.name of type string"
    );
    assert_eq!(
        read("", "v1", "pods", r#"{"spec":{"containers":[{"ports":[{"containerPort":"x"}]}]}}"#),
        "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32"
    );
    assert_eq!(
        read("", "v1", "pods", r#"{"spec":{"restartPolicy":1}}"#),
        "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy"
    );
    assert_eq!(
        read("", "v1", "serviceaccounts", r#"{"secrets":"x"}"#),
        "json: cannot unmarshal string into Go struct field ServiceAccount.secrets of type []v1.ObjectReference"
    );
    assert_eq!(
        read("scheduling.k8s.io", "v1", "priorityclasses", r#"{"value":3000000000}"#),
        "json: cannot unmarshal number 3000000000 into Go struct field PriorityClass.value of type int32"
    );
    assert_eq!(
        read(
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"properties":{"a":{"minimum":"x"}}}}}]}}"#
        ),
        "json: cannot unmarshal string into Go struct field JSONSchemaProps.spec.versions.schema.openAPIV3Schema.properties.minimum of type float64"
    );
}

#[test]
fn what_is_no_json_is_told_in_gos_words() {
    let check = |body: &str, error: &str| {
        check("configmaps", body, error);
        assert_eq!(type_meta(body.as_bytes()).unwrap_err().to_string(), error, "{body}");
    };
    check("", "unexpected end of JSON input");
    check(" ", "unexpected end of JSON input");
    check("{", "unexpected end of JSON input");
    check("nonsense", "invalid character 'o' in literal null (expecting 'u')");
    check(r#"{"metadata":{"name":"x"},}"#, "invalid character '}' looking for beginning of object key string");
    check(r#"{"metadata":{"name":"x"}} trailing"#, "invalid character 't' after top-level value");
    check("{'metadata':{}}", r"invalid character '\'' looking for beginning of object key string");
    check(r#"{"a" 1}"#, "invalid character '1' after object key");
    check(r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair");
    check("[1 2]", "invalid character '2' after array element");
    check("{\"a\":\"\n\"}", r"invalid character '\n' in string literal");
    check(r#"{"a":"\x"}"#, "invalid character 'x' in string escape code");
    check(r#"{"a":01}"#, "invalid character '1' after object key:value pair");
    check(r#"{"a":1.}"#, "invalid character '}' after decimal point in numeric literal");
    // A type error before it does not matter.
    check(r#"{"metadata":"x""#, "unexpected end of JSON input");
    check(r#"{"metadata":{"creationTimestamp":"soon"}"#, "unexpected end of JSON input");
}

#[test]
fn the_kind_of_a_body_is_read_first() {
    let check = |body: &str, expected: &str| {
        let read = match type_meta(body.as_bytes()) {
            Ok((api_version, kind)) => format!("{api_version} {kind}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(read, expected, "{body}");
    };
    check(r#"{"x":[{}],"kind":"Pod","apiVersion":"v1"}"#, "v1 Pod");
    check("null", " ");
    check(r#"{"kind":7}"#, "json: cannot unmarshal number into Go struct field .kind of type string");
    check(r#"{"apiVersion":[]}"#, "json: cannot unmarshal array into Go struct field .apiVersion of type string");
    check(
        "[]",
        r#"json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#,
    );
}

#[test]
fn special_values_are_brought_into_gos_form() {
    check(
        "pods",
        r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"memory":"0.5Gi","cpu":2.5}},"livenessProbe":{"httpGet":{"port":"http"},"tcpSocket":{"port":80}}}],"volumes":[{"name":"v","emptyDir":{"sizeLimit":"1024Mi"}}]}}"#,
        r#"{"metadata":{},"spec":{"volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Gi"}}],"containers":[{"name":"c","resources":{"limits":{"cpu":"2500m","memory":"512Mi"}},"livenessProbe":{"httpGet":{"port":"http"},"tcpSocket":{"port":80}}}]},"status":{}}"#,
    );
    check(
        "secrets",
        r#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05+02:00","deletionTimestamp":null},"data":{"a":"YW\nI=","b":null}}"#,
        r#"{"metadata":{"creationTimestamp":"2026-01-02T01:04:05Z"},"data":{"a":"YWI=","b":""}}"#,
    );
    check(
        "configmaps",
        r#"{"data":{"a":"\u00e9\ud83d\ude00\ud800x\n"}}"#,
        "{\"metadata\":{},\"data\":{\"a\":\"é😀\u{fffd}x\\n\"}}",
    );
    assert_eq!(
        read(
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"maximum":1.0,"additionalProperties":{"type":"string","x":1},"items":{"type":"object"},"default":{"b":1,"a":[]}}}}]}}"#
        ),
        r#"{"metadata":{},"spec":{"group":"","names":{"plural":"","kind":""},"scope":"","versions":[{"name":"","served":false,"storage":false,"schema":{"openAPIV3Schema":{"default":{"b":1,"a":[]},"maximum":1,"items":{"type":"object"},"additionalProperties":{"type":"string"}}}}]},"status":{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}}"#
    );
}

#[test]
fn numbers_of_custom_resources_are_those_of_go() {
    let schema = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = serde_json::json!({
        "spec": {
            "group": "example.com",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {
            "acceptedNames": {"plural": "widgets", "kind": "Widget"},
            "conditions": [{"type": "NamesAccepted", "status": "True"}],
        },
    });
    let kind = kinds::custom::kinds(&definition, 0).remove(0);
    let read = kind.decode(br#"{"n":[1.0,1.50,1e3,0.1,9223372036854775807,-1.0E0,18446744073709551615]}"#).unwrap();
    let want = "[1,1.5,1000,0.1,9223372036854775807,-1,1.8446744073709552e+19]";
    assert_eq!(read.object["n"].to_string(), want);
}

#[test]
fn depth_has_an_end() {
    let registry = kinds::builtin();
    let kind = registry.kind("apps", "v1", "controllerrevisions").unwrap();
    let nested = |levels: usize| format!(r#"{{"data":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(decode(&kind.schema, kind.root, nested(DEPTH_MAX - 1).as_bytes()).is_ok());
    let error = decode(&kind.schema, kind.root, nested(100_000).as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "exceeded max depth");
}

#[test]
fn values_that_are_there_are_read_the_same_way() {
    let registry = kinds::builtin();
    let kind = registry.kind("apps", "v1", "deployments").unwrap();
    let check = |value: serde_json::Value, expected: &str| {
        let read = normalize(&kind.schema, kind.root, value);
        assert_eq!(read.map_or_else(|error| error.to_string(), |d| d.object["spec"]["replicas"].to_string()), expected);
    };
    check(serde_json::json!({"spec": {"replicas": 3.0}}), "3");
    check(
        serde_json::json!({"spec": {"replicas": 3.5}}),
        "json: cannot unmarshal number 3.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
}

#[test]
fn declared_defaults_are_put_in_where_nothing_is_set() {
    let check = |plural: &str, body: &str, expected: &str| {
        let registry = kinds::builtin();
        let kind = registry.kind("", "v1", plural).unwrap();
        let mut object = decode(&kind.schema, kind.root, body.as_bytes()).unwrap().object;
        kinds::defaults::apply(&kind.schema, kind.root, &mut object);
        assert_eq!(kind.tidy(object).unwrap()["spec"].to_string(), expected, "{body}");
    };
    check(
        "pods",
        r#"{"spec":{"containers":[{"name":"c","ports":[{"containerPort":1},{"containerPort":2,"protocol":"UDP"},{"protocol":""}],"livenessProbe":{"grpc":{"port":1,"service":null}}}]}}"#,
        r#"{"containers":[{"name":"c","ports":[{"containerPort":1,"protocol":"TCP"},{"containerPort":2,"protocol":"UDP"},{"containerPort":0,"protocol":"TCP"}],"resources":{},"livenessProbe":{"grpc":{"port":1,"service":""}}}]}"#,
    );
    check("replicationcontrollers", r#"{"spec":{}}"#, r#"{"replicas":1}"#);
    check("replicationcontrollers", r#"{"spec":{"replicas":0}}"#, r#"{"replicas":0}"#);
    check("replicationcontrollers", r#"{}"#, r#"{"replicas":1}"#);
}
