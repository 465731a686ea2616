//! What a pod's volumes are made of: objects that are followed, tokens that are replaced in time, and the files of both.

use super::{Message, Worker, make_private};
use crate::atomic::{self, Owner};
use crate::env::ObjectKind;
use crate::followed::{Known, objects_of};
use crate::pod::Volume;
use crate::volumes::Issued;
use crate::{decide, provided, volumes};
use jiff::{SignedDuration, Timestamp};
use kemudi_client::{Api, ApiResource, Dynamic};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const TOKEN_AGAIN: SignedDuration = SignedDuration::from_secs(10);
const SERVICE_ACCOUNTS: ApiResource = ApiResource::new("", "v1", "ServiceAccount", "serviceaccounts", true);

impl Worker {
    pub(super) async fn fetch(&self, kind: ObjectKind, name: &str) -> Result<Option<Known>, String> {
        let api = self.objects_api(kind);
        match api.get_opt(name).await {
            Ok(object) => Ok(object.map(|object| Known::of(kind, &object))),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn objects_api(&self, kind: ObjectKind) -> Api<Dynamic> {
        objects_of(self.shared.config.client.clone(), &self.pod.metadata.namespace, kind)
    }

    pub(super) async fn request_token(&self, token: &crate::pod::TokenProjection) -> Result<Token, String> {
        let account = decide::account(&self.pod.spec);
        let namespace = &self.pod.metadata.namespace;
        let accounts = Api::<Dynamic>::namespaced_of(self.shared.config.client.clone(), namespace, &SERVICE_ACCOUNTS);
        let audiences: Vec<&str> = Some(token.audience.as_str()).into_iter().filter(|text| !text.is_empty()).collect();
        let meta = &self.pod.metadata;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": token.expiration_seconds.unwrap_or(volumes::TOKEN_SECONDS),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
            },
        });
        let issued = Timestamp::now();
        let answer: Value = accounts
            .create_subresource(account, "token", &request)
            .await
            .map_err(|error| format!("failed to fetch token: {error}"))?;
        let value = answer["status"]["token"].as_str().ok_or("failed to fetch token: the answer has none")?.to_owned();
        let expires = answer["status"]["expirationTimestamp"].as_str().and_then(|text| text.parse().ok());
        let expires = expires.unwrap_or(issued + SignedDuration::from_secs(volumes::TOKEN_SECONDS));
        Ok(Token { value, replace_at: volumes::rotate_at(issued, expires, jitter()) })
    }

    /// Replaces the tokens whose time has come; those that cannot be had yet are tried again soon.
    pub(super) async fn replace_tokens(&mut self, now: Timestamp) {
        let pod = self.pod.clone();
        for volume in &pod.spec.volumes {
            for token in volumes::tokens(volume) {
                let key = (volume.name.clone(), token.path.clone());
                if self.tokens.get(&key).is_none_or(|known| known.replace_at > now) {
                    continue;
                }
                match self.request_token(token).await {
                    Ok(made) => drop(self.tokens.insert(key, made)),
                    Err(error) => {
                        tracing::warn!(%error, pod = pod.metadata.name, "a token could not be replaced");
                        self.tokens.entry(key).and_modify(|known| known.replace_at = now + TOKEN_AGAIN);
                        continue;
                    }
                }
                if let Err(error) = self.write_volume(volume) {
                    self.shared.events.warning(&pod, None, "FailedMount", &mount_failed(&volume.name, &error));
                }
            }
        }
    }

    /// Brings a volume's directory up to date.
    pub(super) fn write_volume(&self, volume: &Volume) -> Result<(), String> {
        let dir = self.volume_dir(&volume.name);
        let io = |error: std::io::Error| error.to_string();
        let security = &self.pod.spec.security_context;
        let root = rustix::process::geteuid().is_root();
        if let Some(host) = &volume.host_path {
            return provided::host_path(host);
        }
        if self.provided.contains_key(&volume.name) {
            return Ok(());
        }
        let first = !dir.exists();
        make_private(&dir).map_err(io)?;
        if volume.empty_dir.is_some() {
            if first {
                let mode = if security.fs_group.is_some() { 0o2777 } else { 0o777 };
                let group = security.fs_group.filter(|_| root);
                std::os::unix::fs::chown(&dir, None, group).map_err(io)?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).map_err(io)?;
            }
            return Ok(());
        }
        let issued = self.issued(&volume.name);
        let around = self.shared.surroundings(&self.pod, &self.facts.pod_ip);
        let Some(payload) = volumes::payload(&self.pod, volume, &self.objects, &issued, &around)? else {
            return Err(format!("volume {:?} is of a kind that this node does not support", volume.name));
        };
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(io)?;
        let owner = Owner {
            uid: volumes::one_user(&self.pod).filter(|_| root && issued.is_any()),
            gid: security.fs_group.filter(|_| root),
        };
        atomic::write(&dir, &payload, owner, Timestamp::now()).map(drop).map_err(io)
    }

    /// What was got for this volume.
    fn issued(&self, volume: &str) -> Issued<'_> {
        let tokens = self.tokens.iter().filter(|((name, _), _)| name == volume);
        let trusted = self.certificates.trusted.iter().filter(|((name, _), _)| name == volume);
        let own = self.certificates.own.iter().filter(|((name, _), _)| name == volume);
        Issued {
            tokens: tokens.map(|((_, path), token)| (path.as_str(), token.value.as_str())).collect(),
            trusted: trusted.map(|((_, at), text)| (*at, text.as_str())).collect(),
            credentials: own.map(|((_, at), outcome)| (*at, outcome)).collect(),
        }
    }

    pub(super) fn volume_dir(&self, name: &str) -> PathBuf {
        self.dir.join("volumes").join(name)
    }

    /// Follows the objects that volumes are made of.
    pub(super) fn watch_objects(&mut self) {
        let mut wanted: Vec<_> = self.pod.spec.volumes.iter().flat_map(volumes::references).collect();
        wanted.sort();
        wanted.dedup();
        for (kind, name) in wanted {
            let (shared, sender) = (&self.shared, self.sender.clone());
            let mut follower = shared.followed.follow(&shared.config.client, kind, &self.pod.metadata.namespace, &name);
            self.tasks.spawn(async move {
                loop {
                    let known = follower.next().await;
                    if sender.send(Box::new(Message::Object { kind, name: name.clone(), known })).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}

pub(super) struct Token {
    pub(super) value: String,
    /// When it is to be replaced.
    pub(super) replace_at: Timestamp,
}

pub(super) fn mount_failed(volume: &str, message: &str) -> String {
    format!("MountVolume.SetUp failed for volume {volume:?} : {message}")
}

pub(super) fn jitter() -> SignedDuration {
    let mut random = [0; 4];
    let _ = getrandom::fill(&mut random);
    let part = i64::from(u32::from_ne_bytes(random)) % volumes::ROTATE_JITTER_MAX.as_millis().max(1) as i64;
    SignedDuration::from_millis(part)
}
