//! How fast it is known who asks and what they may do: `cargo bench --package kemudi-server --bench identity`.
//! One thread unless it says otherwise, nothing over a network; each line is the median of [`ROUNDS`] rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use server::authn::service_account::ServiceAccounts;
use server::authn::{AUTHENTICATED, MASTERS, User};
use server::authz::{Attributes, Hearing};
use server::lookup::Lookup;
use server::{Options, Server};

const ROUNDS: usize = 9;
/// Tokens that are shown for the first time in a round.
const TOKENS: usize = 1000;
/// Uses of a token that is known, and authorizations, in a round.
const USES: usize = 100_000;
const BINDINGS: usize = 10_000;

fn main() {
    // `cargo test --benches` only wants to see that it builds.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::start(Options::default())).expect("a server in memory starts");
    let account = json!({"metadata": {"name": "robot"}});
    runtime.block_on(post(&server, "/api/v1/namespaces/default/serviceaccounts", account));
    let tokens: Vec<String> = (0..TOKENS).map(|_| runtime.block_on(token(&server))).collect();
    let state = server.state();
    let known = &state.authenticator.service_accounts;
    let audiences = &state.authenticator.audiences;
    let now = jiff::Timestamp::now().as_second();
    let verify = |accounts: &ServiceAccounts, token: &str| {
        let found = accounts.authenticate(token, audiences, &**state as &dyn Lookup, now);
        assert!(found.is_ok_and(|found| found.is_some()), "a good token");
    };
    let cold = median(TOKENS, || {
        let fresh = ServiceAccounts::new(known.issuers.clone(), known.audiences.clone(), known.keys.clone());
        tokens.iter().for_each(|token| verify(&fresh, token));
    });
    println!("a token that is shown for the first time   {cold}");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let parallel = median(TOKENS, || {
        let fresh = ServiceAccounts::new(known.issuers.clone(), known.audiences.clone(), known.keys.clone());
        // Each core shows tokens that no other does.
        let share = TOKENS.div_ceil(cores);
        std::thread::scope(|scope| {
            for part in tokens.chunks(share) {
                scope.spawn(|| part.iter().for_each(|token| verify(&fresh, token)));
            }
        });
    });
    println!("the same on {cores} cores                        {parallel}");
    let warm = median(USES, || tokens.iter().cycle().take(USES).for_each(|token| verify(known, token)));
    println!("a token that is known                      {warm}");
    let hearing = Hearing::default();
    let authorize = |user: &User, allowed: bool| {
        median(USES, || {
            for _ in 0..USES {
                let pods = Attributes { namespace: "default", ..Attributes::resource(user, "list", "", "pods") };
                assert_eq!(black_box(state.authorizer.authorize(black_box(&pods), &hearing)).is_allowed(), allowed);
            }
        })
    };
    let user =
        |name: &str| User::new(name, ["system:serviceaccounts", "system:serviceaccounts:default", AUTHENTICATED]);
    println!("a refusal with no RoleBinding              {}", authorize(&user(&name(0)), false));
    runtime.block_on(bind(&server));
    println!("a permission among {BINDINGS} RoleBindings     {}", authorize(&user(&name(BINDINGS / 2)), true));
    println!("a refusal among {BINDINGS} RoleBindings        {}", authorize(&user("nobody"), false));
}

fn name(at: usize) -> String {
    format!("system:serviceaccount:default:robot-{at}")
}

/// What one of `count` things took.
fn median(count: usize, mut round: impl FnMut()) -> String {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            round();
            began.elapsed().as_secs_f64() / count as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let each = times[ROUNDS / 2];
    format!("{:>8.2} us, {:>9.0}/s", each * 1e6, 1.0 / each)
}

async fn token(server: &Server) -> String {
    let issued = post(server, "/api/v1/namespaces/default/serviceaccounts/robot/token", json!({})).await;
    issued["status"]["token"].as_str().expect("a token").to_owned()
}

/// A role that lists pods, and a binding of it to each of many accounts.
async fn bind(server: &Server) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    post(server, &format!("{rbac}/roles"), json!({"metadata": {"name": "reader"}, "rules": rules})).await;
    for at in 0..BINDINGS {
        let name = format!("robot-{at}");
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"});
        let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": "default"});
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]});
        post(server, &format!("{rbac}/rolebindings"), binding).await;
    }
}

async fn post(server: &Server, path: &str, body: Value) -> Value {
    let request = http::Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync())
        .expect("a request");
    let admin = Arc::new(User::new("admin", [MASTERS, AUTHENTICATED]));
    let answer = Server::call(server.state(), admin, request).await;
    assert_eq!(answer.status(), 201, "{path}");
    let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}
