//! Why credentials are not taken: what the token says of itself, and what the server says of it to who may ask. The token
//! goes to the server and nowhere else.

use api::meta;
use kemudi_client::Client;
use kemudi_client::token::payload;
use rights::token::Refused;
use rights::{Asked, Cause, Explanation, Finding};
use serde_json::{Value, json};

use super::collect::post;
use crate::{Global, Outcome, program, token_of, whoami};

/// Explains a 401. `reason` is what the server wrote down about it, `""` where only its text is known.
pub async fn explain(global: &Global, reason: &str) -> Outcome<Explanation> {
    let now = crate::now();
    if !reason.is_empty() {
        // The server has the last word, and whose token it was nobody knows.
        let refused = Refused { reason, now, ..Refused::default() };
        return Ok(Explanation::of(Asked::default(), rights::token::causes(&refused)));
    }
    let config = global.config()?;
    let (source, token) = (config.source.clone(), token_of(&config)?);
    match whoami::review(&Client::new(config)?).await {
        Ok(review) => {
            let user = review["status"]["userInfo"]["username"].as_str().unwrap_or_default();
            return Ok(Explanation::of(Asked::default(), vec![accepted(user, &source)]));
        }
        Err(error) if error.is_unauthorized() => {}
        Err(error) => return Err(error.into()),
    }
    let Some(token) = token else {
        let message = format!("{source} has no token, and the server does not take what else it has");
        let look = "look at the client certificate: its end, its CA, and whether this is its cluster";
        let repair = format!("{look}: {} doctor", program());
        let finding = Finding::new(Cause::CredentialsRefused, message, repair);
        return Ok(Explanation::of(Asked::default(), vec![finding]));
    };
    let claims = payload(&token);
    let mut unseen = Vec::new();
    let other = other_credentials(global, &token);
    let (mut reason, mut issuer, mut gone) = (String::new(), String::new(), String::new());
    match &other {
        None => {
            unseen.push("what the server says of the token: give it with --token, and a kubeconfig that may ask".into())
        }
        Some(client) => {
            match post(client, "authentication", "TokenReview", &json!({"token": token})).await {
                Ok(review) => reason = meta::text_at(&review, &["status", "error"]).to_string(),
                Err(error) => unseen.push(format!("what the server says of the token (a TokenReview): {error}")),
            }
            match client.get::<Value>("/.well-known/openid-configuration").await {
                Ok(document) => issuer = meta::text_at(&document, &["issuer"]).to_string(),
                Err(error) => unseen.push(format!("whose tokens the server takes: {error}")),
            }
            if let Some(claims) = &claims {
                gone = bound_and_gone(client, claims, &mut unseen).await;
            }
        }
    }
    let refused = Refused { claims: claims.as_ref(), reason: &reason, issuer: &issuer, gone: &gone, now };
    let subject = claims.as_ref().map(|claims| meta::text_at(claims, &["sub"])).unwrap_or_default();
    let asked = Asked { user: subject.to_string(), ..Asked::default() };
    let mut explanation = Explanation::of(asked, rights::token::causes(&refused));
    explanation.unseen = unseen;
    Ok(explanation)
}

fn accepted(user: &str, source: &str) -> Finding {
    let message = format!("the server takes the credentials of {source} now, and the caller for {user}");
    Finding::new(
        Cause::CredentialsAccepted,
        message,
        format!("name the token that was refused: {} why Unauthorized --token TOKEN", program()),
    )
}

/// A client with credentials that are not the token in question.
fn other_credentials(global: &Global, token: &str) -> Option<Client> {
    global.bearer.as_ref()?;
    let other = Global { bearer: None, as_user: None, as_group: Vec::new(), as_uid: None, ..global.clone() };
    let config = other.config().ok()?;
    let is_other = config.client_certificate.is_some() || token_of(&config).ok()?.is_some_and(|other| other != token);
    is_other.then(|| other.client().ok())?
}

/// What the token is bound to and is gone, or was made anew.
async fn bound_and_gone(client: &Client, claims: &Value, unseen: &mut Vec<String>) -> String {
    let bound = &claims["kubernetes.io"];
    let namespace = meta::text_at(bound, &["namespace"]);
    for (field, resource) in [("serviceaccount", "serviceaccounts"), ("pod", "pods"), ("secret", "secrets")] {
        let (name, uid) = (meta::text_at(bound, &[field, "name"]), meta::text_at(bound, &[field, "uid"]));
        if name.is_empty() {
            continue;
        }
        let what = format!("{field} {name:?} of namespace {namespace:?}");
        match client.get::<Value>(&format!("/api/v1/namespaces/{namespace}/{resource}/{name}")).await {
            Ok(object) if meta::uid(&object) != uid => {
                return format!("a {what} that was deleted; another has its name");
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => return format!("the {what}, which is gone"),
            Err(error) => unseen.push(format!("whether the {what} is there: {error}")),
        }
    }
    String::new()
}
