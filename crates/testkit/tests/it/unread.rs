//! Requests that are refused before their body is read: the client learns the answer, whatever it is still sending.

use std::path::Path;

use testkit::command::{RUN_LIMIT, run};
use testkit::server::ADMIN_TOKEN;
use testkit::{Server, clients};

/// A body that is passed over, one beyond what is read before an answer, and one that takes a while to send.
const SIZES: [usize; 3] = [1000, 300_000, 10_000_000];
/// Whether an answer is seen depends on who is faster.
const TIMES: usize = 5;

#[test]
fn the_answer_is_seen_over_http1() {
    check("--http1.1");
}

#[test]
fn the_answer_is_seen_over_http2() {
    check("--http2");
}

#[track_caller]
fn check(protocol: &str) {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let folder = tempfile::tempdir().expect("a folder");
    for size in SIZES {
        let body = folder.path().join(size.to_string());
        std::fs::write(&body, vec![b'x'; size]).expect("a file");
        for _ in 0..TIMES {
            let post = |token: &str, path: &str, want: &str| {
                assert_eq!(code(&server, protocol, &body, token, path), want, "{protocol} {size} {path}");
            };
            post("wrong", "/api/v1/namespaces/default/configmaps", "401");
            post("", "/api/v1/namespaces/default/configmaps", "403");
            post(ADMIN_TOKEN, "/none", "404");
            post(ADMIN_TOKEN, "/api/v1/namespaces/default/configmaps/none", "405");
            post(ADMIN_TOKEN, "/api/v1/namespaces/default/configmaps", "415");
        }
    }
}

/// The code that curl shows of the answer to a POST of a file, sent without asking first.
fn code(server: &Server, protocol: &str, body: &Path, token: &str, path: &str) -> String {
    let mut curl = clients::curl();
    curl.args(["--output", "/dev/null", "--write-out", "%{http_code}", protocol]).arg("--cacert").arg(server.ca());
    curl.args(["--header", "Expect:", "--header", "Content-Type: text/plain"]);
    if !token.is_empty() {
        curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    curl.arg("--data-binary").arg(format!("@{}", body.display())).arg(format!("{}{path}", server.url));
    run(&mut curl, "", RUN_LIMIT).ok()
}
