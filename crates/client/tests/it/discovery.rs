//! What words mean, with aggregated documents and with the old ones.

use kemudi_client::discovery::Discovery;

use crate::table::Table;

const CORE: &str = r#"200 {"kind":"APIGroupDiscoveryList","items":[{"metadata":{},"versions":[{"version":"v1","resources":[
 {"resource":"pods","responseKind":{"kind":"Pod"},"scope":"Namespaced","singularResource":"pod","shortNames":["po"],"verbs":["get"],"categories":["all"],"subresources":[{"subresource":"log"}]},
 {"resource":"events","responseKind":{"kind":"Event"},"scope":"Namespaced","singularResource":"event","shortNames":["ev"],"verbs":["get"]}]}]}]}"#;
const GROUPS: &str = r#"200 {"kind":"APIGroupDiscoveryList","items":[
 {"metadata":{"name":"apps"},"versions":[{"version":"v1","resources":[{"resource":"deployments","responseKind":{"kind":"Deployment"},"scope":"Namespaced","singularResource":"deployment","shortNames":["deploy"],"verbs":["get"],"categories":["all"]}]}]},
 {"metadata":{"name":"events.k8s.io"},"versions":[{"version":"v1","resources":[{"resource":"events","responseKind":{"kind":"Event"},"scope":"Namespaced","singularResource":"event","shortNames":["ev"],"verbs":["get"]}]}]},
 {"metadata":{"name":"autoscaling"},"versions":[{"version":"v2","resources":[{"resource":"hpas","responseKind":{"kind":"HPA"},"scope":"Namespaced","verbs":[]}]},{"version":"v1","resources":[{"resource":"hpas","responseKind":{"kind":"HPA"},"scope":"Namespaced","verbs":[]},{"resource":"olds","responseKind":{"kind":"Old"},"scope":"Cluster","verbs":[]}]}]}]}"#;

#[track_caller]
fn check(discovery: &Discovery, word: &str, want: &str) {
    let got = match discovery.resolve(word) {
        Ok(found) => format!("{} {}", found.resource.api_version(), found.resource.plural),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, want, "{word}");
}

#[tokio::test]
async fn words_mean_resources() {
    let (client, _) = Table::client(&[CORE, GROUPS]);
    let found = Discovery::fetch(&client).await.unwrap();
    check(&found, "po", "v1 pods");
    check(&found, "Pod", "v1 pods");
    check(&found, "deploy", "apps/v1 deployments");
    check(&found, "deployments.apps", "apps/v1 deployments");
    check(&found, "deployments.v1.apps", "apps/v1 deployments");
    check(&found, "events", "v1 events");
    check(&found, "ev.events.k8s.io", "events.k8s.io/v1 events");
    check(&found, "hpas", "autoscaling/v2 hpas");
    check(&found, "hpas.v1.autoscaling", "autoscaling/v1 hpas");
    check(&found, "olds", "autoscaling/v1 olds");
    check(&found, "frobnitz", r#"the server doesn't have a resource type "frobnitz""#);
    assert_eq!(found.category("all").map(|found| &*found.resource.plural).collect::<Vec<_>>(), ["pods", "deployments"]);
}

#[tokio::test]
async fn old_servers_are_walked() {
    let (client, table) = Table::client(&[
        r#"200 {"kind":"APIVersions","versions":["v1"]}"#,
        r#"200 {"resources":[{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get"]},{"name":"pods/log","namespaced":true,"kind":"Pod","verbs":["get"]}]}"#,
        r#"200 {"kind":"APIGroupList","groups":[{"name":"gone.example.com","versions":[{"version":"v1"}]},{"name":"apps","versions":[{"version":"v1"}]}]}"#,
        "503 away",
        r#"200 {"resources":[{"name":"deployments","singularName":"deployment","namespaced":true,"kind":"Deployment","verbs":["get"],"shortNames":["deploy"]}]}"#,
    ]);
    let found = Discovery::fetch(&client).await.unwrap();
    check(&found, "deploy", "apps/v1 deployments");
    assert_eq!(found.find("pod").unwrap().subresources, ["log"]);
    assert!(table.asked().ends_with("GET /apis/gone.example.com/v1\nGET /apis/apps/v1"), "{}", table.asked());
}
