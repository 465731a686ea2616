//! The authorizers that are asked, in their order, and how often each of them decided. Holds no opinion of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Decision;
use super::configuration::{Configuration, Type};
use super::webhook::{self, Webhook};

/// Names of authorizers that are counted apart, over all that a file ever said. More are counted together, as `other`.
const NAMES_MAX: usize = 256;

/// All authorizers of a configuration.
pub struct Chain {
    pub links: Vec<Link>,
    /// One of them is a webhook.
    pub asks_webhooks: bool,
}

/// An authorizer and what it is called.
pub struct Link {
    pub name: String,
    pub authority: Authority,
    pub decided: Arc<Decided>,
}

/// Who is asked.
pub enum Authority {
    Node,
    Rbac,
    AlwaysDeny,
    Webhook(Arc<Webhook>),
}

impl Chain {
    /// Node and RBAC: what is asked where nobody says otherwise.
    pub fn standard(counts: &Counts) -> Chain {
        let link = |kind: Type, authority| {
            let name = kind.as_str().to_lowercase();
            Link { decided: counts.decided(kind, &name), name, authority }
        };
        let links = vec![link(Type::Node, Authority::Node), link(Type::Rbac, Authority::Rbac)];
        Chain { links, asks_webhooks: false }
    }

    /// # Errors
    /// What is wrong with the connection to a webhook.
    pub fn of(configuration: &Configuration, counts: &Counts) -> Result<Chain, String> {
        let mut links = Vec::new();
        for authorizer in &configuration.authorizers {
            let name = authorizer.name.clone();
            let authority = match (authorizer.kind, &authorizer.webhook) {
                (Type::Node, _) => Authority::Node,
                (Type::Rbac, _) => Authority::Rbac,
                (Type::AlwaysDeny, _) => Authority::AlwaysDeny,
                (Type::Webhook, Some(options)) => {
                    let webhook = Webhook::new(&name, options, counts.webhook(&name));
                    Authority::Webhook(Arc::new(webhook.map_err(|why| format!("authorizer {name}: {why}"))?))
                }
                (Type::Webhook, None) => return Err(format!("the authorizer {name} has no webhook")),
            };
            let decided = counts.decided(authorizer.kind, &name);
            links.push(Link { name, authority, decided });
        }
        let asks_webhooks = links.iter().any(|link| matches!(link.authority, Authority::Webhook(_)));
        Ok(Chain { links, asks_webhooks })
    }
}

/// Decisions of one authorizer that ended the questions.
#[derive(Default)]
pub struct Decided {
    pub allowed: AtomicU64,
    pub denied: AtomicU64,
}

impl Decided {
    pub fn count(&self, decision: &Decision) {
        let count = if decision.is_allowed() { &self.allowed } else { &self.denied };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What metrics tell of the authorizers that a configuration names. They outlive it: a count never falls.
#[derive(Default)]
pub struct Counts {
    decided: Mutex<BTreeMap<(&'static str, String), Arc<Decided>>>,
    webhooks: Mutex<BTreeMap<String, Arc<webhook::Counts>>>,
    pub reloads: super::reload::Counts,
}

impl Counts {
    fn decided(&self, kind: Type, name: &str) -> Arc<Decided> {
        let mut all = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let name = bounded(name, all.len());
        all.entry((kind.as_str(), name)).or_default().clone()
    }

    fn webhook(&self, name: &str) -> Arc<webhook::Counts> {
        let mut all = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        let name = bounded(name, all.len());
        all.entry(name).or_default().clone()
    }

    /// By type and name.
    pub fn all_decided(&self) -> Vec<(&'static str, String, Arc<Decided>)> {
        let all = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((kind, name), decided)| (*kind, name.clone(), decided.clone())).collect()
    }

    /// By name.
    pub fn all_webhooks(&self) -> Vec<(String, Arc<webhook::Counts>)> {
        let all = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, counts)| (name.clone(), counts.clone())).collect()
    }
}

fn bounded(name: &str, count: usize) -> String {
    if count < NAMES_MAX { name.to_string() } else { "other".to_string() }
}
