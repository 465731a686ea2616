//! Tokens, authorities and certificates that are replaced under a client at work: no call fails.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kemudi_client::Client;
use kemudi_client::config::Pem;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::https::{Endpoint, Issuer, listed, swap};

const FINE: &str = "HTTP/2.0";

/// Replaces a volume's files as a kubelet does: a new folder, and a link that is renamed over the old one.
fn project(volume: &Path, number: usize, files: &[(&str, &str)]) {
    let folder = format!("..{number}");
    fs::create_dir(volume.join(&folder)).unwrap();
    for (name, text) in files {
        fs::write(volume.join(&folder).join(name), text).unwrap();
        if !volume.join(name).is_symlink() {
            let _ = fs::remove_file(volume.join(name));
            symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
        }
    }
    symlink(&folder, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if number > 0 {
        fs::remove_dir_all(volume.join(format!("..{}", number - 1))).unwrap();
    }
}

#[tokio::test]
async fn a_new_token_is_in_use_with_the_next_request() {
    let issuer = Issuer::new();
    let server = Endpoint::start(&issuer, &["h2"], 100).await;
    let volume = server.dir.path();
    let ca = fs::read_to_string(server.file("ca.crt")).unwrap();
    project(volume, 0, &[("token", "0"), ("ca.crt", &ca)]);
    *server.token.lock().unwrap() = "0".to_string();
    let client = Client::new(server.config()).unwrap();
    for number in 1..20 {
        assert_eq!(listed(&client).await, FINE);
        project(volume, number, &[("token", &number.to_string()), ("ca.crt", &ca)]);
        *server.token.lock().unwrap() = number.to_string();
    }
    assert_eq!(listed(&client).await, FINE);
    assert_eq!(server.refused.load(Ordering::SeqCst), 0, "the old token was never tried after the swap");
}

/// Starts a request each millisecond for a while, whatever `meanwhile` does each quarter of a second.
async fn under_load(client: &Client, seconds: u64, mut meanwhile: impl AsyncFnMut(usize)) -> (usize, Vec<String>) {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let done = Arc::new(AtomicUsize::new(0));
    let mut requests = JoinSet::new();
    let mut pace = interval(Duration::from_millis(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        pace.tick().await;
        let (client, done, failures) = (client.clone(), done.clone(), failures.clone());
        requests.spawn(async move {
            match listed(&client).await.as_str() {
                FINE => drop(done.fetch_add(1, Ordering::Relaxed)),
                other => failures.lock().unwrap().push(other.to_string()),
            }
        });
        while requests.try_join_next().is_some() {}
        if started.elapsed() >= Duration::from_millis(250) * (rounds + 1) {
            rounds += 1;
            meanwhile(rounds as usize).await;
        }
    }
    while requests.join_next().await.is_some() {}
    let failures = failures.lock().unwrap().clone();
    (done.load(Ordering::Relaxed), failures)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_rotated_and_revoked_under_load_fail_no_call() {
    let server = Endpoint::start(&Issuer::new(), &["h2"], 1000).await;
    let client = Client::new(server.config()).unwrap();
    assert_eq!(listed(&client).await, FINE);
    let (done, failures) = under_load(&client, 3, async |round| {
        // The old one is worth nothing from the very moment on.
        let mut valid = server.token.lock().unwrap();
        *valid = format!("token-{round}");
        swap(&server.file("token"), &valid);
    })
    .await;
    assert_eq!(failures, Vec::<String>::new(), "of {done}");
    assert!(done > 1000, "only {done} requests in 3 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_replaced_under_load_fails_no_call() {
    let old = Issuer::new();
    let mut server = Endpoint::start(&old, &["h2"], 1000).await;
    let client = Client::new(server.config()).unwrap();
    assert_eq!(listed(&client).await, FINE);
    let (done, failures) = under_load(&client, 2, async |_| {
        // Every time another authority, all connections cut, and a server that only the new one vouches for.
        let issuer = Issuer::new();
        // Who connects meanwhile waits.
        server.stop().await;
        swap(&server.file("ca.crt"), &issuer.pem());
        server.restart(&issuer, &["h2"], 1000);
    })
    .await;
    assert_eq!(failures, Vec::<String>::new(), "of {done}");
    assert!(done > 500, "only {done} requests in 2 s");
}

#[tokio::test]
async fn a_client_certificate_is_shown_anew_when_its_files_change() {
    let (stranger, known) = (Issuer::new(), Issuer::new());
    let server = Endpoint::guarded(&Issuer::new(), &known).await;
    let show = |(certificate, key): (String, String)| {
        swap(&server.file("tls.crt"), &certificate);
        swap(&server.file("tls.key"), &key);
    };
    show(stranger.client());
    let mut config = server.config();
    config.client_certificate = Some((Pem::File(server.file("tls.crt")), Pem::File(server.file("tls.key"))));
    let client = Client::new(config).unwrap();
    let refusal = listed(&client).await;
    assert_ne!(refusal, FINE);
    show(known.client());
    assert_eq!(listed(&client).await, FINE);
    // A connection is who its certificate says: the next request is made on another.
    let before = server.connections();
    assert_eq!(listed(&client).await, FINE);
    assert_eq!(server.connections(), before);
    show(known.client());
    assert_eq!(listed(&client).await, FINE);
    assert_eq!(server.connections(), before + 1);
}
