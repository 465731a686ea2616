//! Where a container's files come from: the machine itself, or an image of the store, which may have to be pulled first. Decides
//! and pulls; starts nothing.

use crate::agent::Shared;
use crate::decide::HOST_IMAGE;
use crate::env::Data;
use crate::pod::Container;
use crate::runtime::{Engine, EngineImage, SANDBOX_HANDLER};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use images::{Auth, Hold, Reference, Store};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// From when on images go that nobody uses, by how much of the disk is taken, and down to what; the kubelet's.
const FULL_PERCENT: u64 = 85;
const AIM_PERCENT: u64 = 80;
/// What was used just now may be about to be used again.
const IDLE_MIN: Duration = Duration::from_secs(120);

/// A container's files.
#[derive(Clone, Debug)]
pub enum Files {
    /// The machine's own.
    Host,
    /// An image's. It stays in the store as long as this.
    Image(Arc<Hold>),
    /// An image's that an engine has.
    Engine(EngineImage),
}

impl Files {
    /// What they hold, in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Files::Host => 0,
            Files::Image(held) => held.image.bytes,
            Files::Engine(image) => image.bytes,
        }
    }
}

/// What is to be done for a container's image.
#[derive(Debug)]
pub enum Choice {
    Use(Files),
    Pull(Reference),
    /// A waiting reason of Kubernetes, and its message.
    Refuse(&'static str, String),
}

/// What the pull policy says, with what the store has. Reads the store's folder.
pub fn choose(container: &Container, store: &Store) -> Choice {
    let name = container.image.as_str();
    if name == HOST_IMAGE {
        return Choice::Use(Files::Host);
    }
    let reference = match images::reference(name) {
        Ok(reference) => reference,
        Err(why) => return invalid(name, why),
    };
    let found = store.hold(name).map(|hold| hold.map(|hold| Files::Image(Arc::new(hold))));
    by_policy(container, reference, found.map_err(|why| why.to_string()))
}

/// The same with what an engine has.
pub async fn choose_of(container: &Container, engine: &dyn Engine) -> Choice {
    let name = container.image.as_str();
    if name == HOST_IMAGE {
        let message = format!(
            "The image {name:?} is this machine itself, which pods of the sandbox alone have: give the pod a RuntimeClass \
             with the handler {SANDBOX_HANDLER:?}"
        );
        return Choice::Refuse("ErrImageNeverPull", message);
    }
    let reference = match images::reference(name) {
        Ok(reference) => reference,
        Err(why) => return invalid(name, why),
    };
    let found = engine.image(&reference.whole()).await;
    by_policy(container, reference, found.map(|image| image.map(Files::Engine)))
}

fn invalid(name: &str, why: impl std::fmt::Display) -> Choice {
    Choice::Refuse("InvalidImageName", format!("Failed to apply default image tag {name:?}: {why}"))
}

fn by_policy(container: &Container, reference: Reference, found: Result<Option<Files>, String>) -> Choice {
    let name = container.image.as_str();
    match (found, container.image_pull_policy.as_str()) {
        (Err(why), _) => Choice::Refuse("ImageInspectError", format!("Failed to inspect image {name:?}: {why}")),
        (Ok(Some(files)), "IfNotPresent" | "Never" | "") => Choice::Use(files),
        (Ok(None), "Never") => {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            Choice::Refuse("ErrImageNeverPull", message)
        }
        (Ok(_), _) => Choice::Pull(reference),
    }
}

/// Pulls an image and keeps it, and makes room for the next one. An error is the message of an event.
pub async fn pull(shared: &Shared, reference: &Reference, secrets: &[Data]) -> Result<Arc<Hold>, String> {
    let store = &shared.config.images;
    let pulled = fetch(store, reference, secrets).await;
    // That one came is when there is less room than before.
    let looked_at = store.clone();
    if let Ok(Err((reason, message))) = tokio::task::spawn_blocking(move || make_room(&looked_at)).await {
        shared.events.node_warning(reason, &message);
    }
    pulled
}

async fn fetch(store: &Store, reference: &Reference, secrets: &[Data]) -> Result<Arc<Hold>, String> {
    let whole = reference.whole();
    let failed = |why: String| format!("failed to pull and unpack image {whole:?}: {why}");
    Puller::Store(store).pull(reference, secrets).await.map_err(failed)?;
    let held = store.hold(&whole).map_err(|why| failed(why.to_string()))?;
    held.map(Arc::new).ok_or_else(|| failed("it was removed at once".into()))
}

/// Has an engine pull an image. An error is the message of an event.
pub async fn pull_by(engine: &dyn Engine, reference: &Reference, secrets: &[Data]) -> Result<EngineImage, String> {
    let whole = reference.whole();
    Puller::Engine(engine).pull(reference, secrets).await?;
    let found = engine.image(&whole).await?;
    found.ok_or_else(|| format!("image {whole:?} was removed as soon as it was pulled"))
}

/// Who pulls an image.
enum Puller<'a> {
    Store(&'a Store),
    Engine(&'a dyn Engine),
}

impl Puller<'_> {
    /// Pulls with each credential that is for this registry, then as nobody, as the kubelet goes about it, until one is let in. The
    /// first refusal is told.
    async fn pull(&self, reference: &Reference, secrets: &[Data]) -> Result<(), String> {
        let mut refusal = None;
        for auth in secrets.iter().filter_map(|secret| credentials(secret, reference)).chain([Auth::Nobody]) {
            let pulled = match self {
                Puller::Store(store) => store.pull(reference, &auth, |_| {}).await.map(drop),
                Puller::Engine(engine) => engine.pull(&reference.whole(), &auth).await,
            };
            match pulled {
                Ok(()) => return Ok(()),
                Err(why @ images::Error::Denied(_)) => _ = refusal.get_or_insert(why),
                Err(why) => return Err(why.to_string()),
            }
        }
        Err(refusal.map(|why| why.to_string()).unwrap_or_default())
    }
}

/// Takes images away that nobody uses where little of the disk is free. An error is the reason and the message of an event.
pub fn make_room(store: &Store) -> Result<(), (&'static str, String)> {
    let failed = |why: images::Error| ("ImageGCFailed", format!("failed to garbage collect images: {why}"));
    let (bytes, free) = store.room().map_err(failed)?;
    let excess = excess(bytes, free);
    if excess == 0 {
        return Ok(());
    }
    match store.free(excess, IDLE_MIN).map_err(failed)? {
        freed if freed >= excess => Ok(()),
        freed => {
            let used = (bytes - free) as f64 * 100.0 / bytes as f64;
            let message = format!(
                "Insufficient free disk space on the node's image filesystem ({used:.1}% of {bytes} bytes used). Failed to free \
                 sufficient space by deleting unused images. Freed {freed} bytes, but wanted {excess}"
            );
            Err(("FreeDiskSpaceFailed", message))
        }
    }
}

/// How many bytes of a disk are to be freed: none as long as it is not fuller than it may be.
fn excess(bytes: u64, free: u64) -> u64 {
    let percent = |part: u64| bytes / 100 * part;
    if free > percent(100 - FULL_PERCENT) { 0 } else { percent(100 - AIM_PERCENT).saturating_sub(free) }
}

/// A time as Go prints it, without what is below a millisecond: `532ms`, `1.2s`, `1m2.05s`.
pub fn milliseconds(time: std::time::Duration) -> String {
    let whole = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    kinds::scalar::print_duration(whole.saturating_mul(1_000_000))
}

/// What a Secret of type `kubernetes.io/dockerconfigjson` (or the older form) holds for the registry of an image.
fn credentials(secret: &Data, reference: &Reference) -> Option<Auth> {
    let parse = |key: &str| serde_json::from_slice::<Value>(secret.get(key)?).ok();
    let auths = match parse(".dockerconfigjson") {
        Some(config) => config.get("auths")?.clone(),
        None => parse(".dockercfg")?,
    };
    let registry = reference.registry();
    let (_, entry) = auths.as_object()?.iter().find(|(key, _)| is_for(key, registry))?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let (Some(name), Some(password)) = (text("username"), text("password")) {
        return Some(Auth::User { name: name.into(), password: password.into() });
    }
    let pair = String::from_utf8(STANDARD.decode(text("auth")?).ok()?).ok()?;
    let (name, password) = pair.split_once(':')?;
    Some(Auth::User { name: name.into(), password: password.into() })
}

/// Whether a key of `auths`, which may be a URL with a path, is about a registry. Docker's own has many names.
fn is_for(key: &str, registry: &str) -> bool {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let host = key.split('/').next().unwrap_or_default();
    let own = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    host == registry || own(host) && own(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_where_a_disk_is_nearly_full() {
        let check = |free, expected| assert_eq!(excess(1000, free), expected, "{free}");
        check(500, 0);
        check(151, 0);
        check(150, 50);
        check(0, 200);
        assert_eq!(excess(0, 0), 0);
    }

    #[test]
    fn times_are_gos() {
        let check = |micros: u64, want: &str| {
            assert_eq!(milliseconds(std::time::Duration::from_micros(micros)), want);
        };
        check(532_900, "532ms");
        check(1_200_000, "1.2s");
        check(2_000_400, "2s");
        check(62_050_000, "1m2.05s");
        check(3_600_000_000, "1h0m0s");
        check(10, "0s");
    }

    #[track_caller]
    fn check(key: &str, config: &str, image: &str, want: &str) {
        let secret = Data::from([(key.to_owned(), config.as_bytes().to_vec())]);
        let got = match credentials(&secret, &images::reference(image).unwrap()) {
            Some(Auth::User { name, password }) => format!("{name}:{password}"),
            _ => String::new(),
        };
        assert_eq!(got, want, "{config}");
    }

    #[test]
    fn pull_secrets_are_for_their_registries() {
        const NEW: &str = ".dockerconfigjson";
        let of = |key: &str| format!(r#"{{"auths":{{"{key}":{{"auth":"YTpi"}}}}}}"#);
        check(NEW, &of("https://index.docker.io/v1/"), "alpine", "a:b");
        check(NEW, &of("registry.example.com:5000"), "registry.example.com:5000/x", "a:b");
        check(NEW, &of("https://registry.example.com"), "registry.example.com/team/x:1", "a:b");
        check(NEW, &of("registry.example.com"), "other.example.com/x", "");
        check(NEW, r#"{"auths":{"a.b":{"username":"u","password":"p:q"}}}"#, "a.b/x", "u:p:q");
        check(".dockercfg", r#"{"a.b":{"auth":"YTpi"}}"#, "a.b/x", "a:b");
        check(NEW, "{", "a.b/x", "");
        check(NEW, r#"{"auths":{"a.b":{"auth":"?"}}}"#, "a.b/x", "");
    }
}
