//! Images of a container runtime: what it has, and that it gets one. Keeps nothing.

use super::client::{Client, NOT_FOUND, UNKNOWN};
use super::messages::{AuthConfig, Image};
use crate::runtime::{Engine, EngineImage};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use images::{Auth, Config, Error};
use serde_json::Value;
use std::sync::Arc;

/// The images of the runtime behind a client.
pub struct Images(pub Arc<Client>);

impl Engine for Images {
    fn image(&self, name: &str) -> BoxFuture<'_, Result<Option<EngineImage>, String>> {
        let name = name.to_owned();
        async move {
            let answer = self.0.image_status(&name).await.map_err(|error| error.to_string())?;
            let Some(image) = answer.image else { return Ok(None) };
            let config = config_of(&image, answer.info.get("info").map(String::as_str).unwrap_or_default());
            let shown = image.repo_digests.first().unwrap_or(&image.id).clone();
            Ok(Some(EngineImage { shown, bytes: image.size, config, id: image.id }))
        }
        .boxed()
    }

    fn pull(&self, name: &str, auth: &Auth) -> BoxFuture<'_, Result<(), Error>> {
        let name = name.to_owned();
        let auth = match auth {
            Auth::Nobody => None,
            Auth::User { name, password } => Some(AuthConfig { username: name.clone(), password: password.clone() }),
        };
        async move {
            self.0.pull_image(&name, auth).await.map(drop).map_err(|error| {
                let denied = ["authorization failed", "unauthorized", "401", "403", "pull access denied"];
                match error.code {
                    NOT_FOUND => Error::NotFound(error.to_string()),
                    // All that a runtime says of a registry's refusal is words.
                    UNKNOWN if denied.iter().any(|word| error.message.contains(word)) => {
                        Error::Denied(error.to_string())
                    }
                    _ => Error::Registry(error.to_string()),
                }
            })
        }
        .boxed()
    }
}

/// How an image wants to be run, as runtimes tell it beside what the interface has: JSON with the image's own description.
fn config_of(image: &Image, info: &str) -> Config {
    let info: Value = serde_json::from_str(info).unwrap_or_default();
    let told = info.pointer("/imageSpec/config").cloned().and_then(|it| serde_json::from_value::<Config>(it).ok());
    let mut config = told.unwrap_or_default();
    if config.user.is_empty() {
        config.user = image.uid.as_ref().map_or_else(|| image.username.clone(), |uid| uid.value.to_string());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::super::messages::Int64Value;
    use super::*;

    #[test]
    fn configurations() {
        let image = Image { uid: Some(Int64Value { value: 7 }), ..Image::default() };
        let told = config_of(&image, r#"{"imageSpec":{"config":{"Env":["A=1"],"Cmd":["sh"],"User":"bin"}}}"#);
        assert_eq!((told.env, told.cmd, told.user), (vec!["A=1".into()], vec!["sh".into()], "bin".into()));
        assert_eq!(config_of(&image, "").user, "7");
    }
}
