//! Loops that keep a cluster's promises: every namespace has its default account and the root CA, a deleted namespace goes
//! with all that is in it, pods get a node, dependents go with their owners. They know the server only through
//! [`kemudi_client`], act on what watches tell, and never poll for a cause.

mod cluster_role;
mod root_ca;
mod run;
mod selector;
mod service_account;

use std::sync::Arc;

use kemudi_client::Client;

use crate::run::{Informers, Runner};

/// The name by which the server's records (managed fields, for one) know the controllers.
const AGENT: &str = "kube-controller-manager";

/// What controllers need beside the API.
pub struct Options {
    /// PEM of the authority that signed the server's certificate; what every namespace is told.
    pub root_ca: String,
    /// Makes tokens for the Secrets that ask for one; without it they stay as they are.
    pub signer: Option<Arc<dyn TokenSigner>>,
}

/// Makes the unexpiring token of a Secret of type `kubernetes.io/service-account-token`.
pub trait TokenSigner: Send + Sync + 'static {
    /// # Errors
    /// A text that says why no token can be made; it is tried again later.
    fn sign(&self, namespace: &str, account: &str, account_uid: &str, secret: &str) -> Result<String, String>;
}

/// The running controllers. [`Controllers::shutdown`] ends them; so does dropping.
pub struct Controllers {
    runner: Runner,
}

/// All controllers; each says in `start` what it watches and what it does about it.
const ALL: &[fn(&mut Runner, &mut Informers)] = &[service_account::start, root_ca::start, cluster_role::start];

impl Controllers {
    /// Starts all controllers as tasks of the current runtime. They begin to act once their first lists are there.
    pub fn start(client: Client, options: Options) -> Controllers {
        let client = client.clone().with_user_agent(AGENT).unwrap_or(client);
        let mut runner = Runner::new(client.clone(), options);
        let mut informers = Informers::new(&client);
        for start in ALL {
            start(&mut runner, &mut informers);
        }
        informers.start(&mut runner);
        Controllers { runner }
    }

    /// Ends all controllers and waits until none is at work.
    pub async fn shutdown(self) {
        self.runner.shutdown().await;
    }
}
