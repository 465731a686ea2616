//! Loops that keep promises: each watches what it is about, decides as a function of what it saw, and acts through the client.
//! Knows the server only through [`kemudi_client`]; never polls, never holds what it does not need.
//!
//! To add a controller: one file with a [`control::Controller`], one line in [`Controllers::start`].

mod act;
mod aggregation;
mod control;
mod default_account;
mod definitions;
mod disruption;
mod empty_namespace;
mod endpoint_mirror;
mod endpoint_slices;
mod endpoints;
mod event;
mod feed;
mod garbage;
mod graph;
mod kinds;
mod lean;
mod mirror;
mod namespace;
mod node_taints;
mod queue;
mod registrations;
mod resources;
mod root_ca;
mod scheduler;
mod service_cidrs;
mod storage_protection;
mod token_secret;
mod volume_binder;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::FutureExt;
use kemudi_client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Signs the tokens of Secrets; whoever implements it has the key.
pub trait TokenSigner: Send + Sync {
    /// A token of a ServiceAccount that is good as long as the Secret that holds it.
    fn sign(&self, namespace: &str, account: &str, account_uid: &str, secret: &str) -> Result<String, String>;
}

/// What the controllers need to know beside what they watch.
#[derive(Clone)]
pub struct Options {
    /// The certificates that clients trust, PEM: the content of each `kube-root-ca.crt`. They may change.
    pub root_ca: watch::Receiver<String>,
    /// Without it Secrets of type `kubernetes.io/service-account-token` stay empty.
    pub signer: Option<Arc<dyn TokenSigner>>,
}

/// All controllers, running. They end with [`Controllers::shutdown`], or at once when this is dropped.
pub struct Controllers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Controllers {
    /// Starts all controllers as the client's identity, which must be allowed to do what they do.
    pub fn start(client: Client, options: Options) -> Controllers {
        // Controllers read what is deprecated too, and that is no news.
        let client = client.on_warning(|text| tracing::debug!("{text}"));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let agent = |name: &str| client.clone().with_user_agent(&format!("kube-controller-manager/{name}"));
        let client = |name: &str| agent(name).unwrap_or_else(|_| client.clone());
        let mut feeds = feed::Feeds::default();
        let mut start = |tasks: &mut JoinSet<()>, client: Client, controller: Box<dyn control::Controller>| {
            let events = feeds.follow(&controller.sources());
            tasks.spawn(control::run(client, controller, events, stop.clone()));
        };
        let (resources, keep) = resources::follow(client("discovery"));
        tasks.spawn(stop.clone().run_until_cancelled_owned(keep).map(drop));
        start(&mut tasks, client("service-account-controller"), Box::new(default_account::DefaultAccount));
        start(&mut tasks, client("root-ca-cert-publisher"), Box::new(root_ca::RootCa::new(options.root_ca.clone())));
        start(
            &mut tasks,
            client("namespace-controller"),
            Box::new(namespace::NamespaceDeletion::new(resources.clone())),
        );
        start(&mut tasks, client("clusterrole-aggregation-controller"), Box::new(aggregation::Aggregation));
        if let Some(signer) = options.signer {
            let controller = token_secret::TokenSecrets::new(options.root_ca, signer);
            start(&mut tasks, client("tokens-controller"), Box::new(controller));
        }
        start(&mut tasks, client("node-controller"), Box::new(node_taints::NodeTaints));
        start(&mut tasks, client("pvc-protection-controller"), Box::new(storage_protection::ClaimProtection));
        start(&mut tasks, client("pv-protection-controller"), Box::new(storage_protection::VolumeProtection));
        start(
            &mut tasks,
            client("volumeattributesclass-protection-controller"),
            Box::new(storage_protection::AttributesProtection),
        );
        start(&mut tasks, client("endpoint-controller"), Box::new(endpoints::Endpoints));
        start(&mut tasks, client("endpointslicemirroring-controller"), Box::new(endpoint_mirror::EndpointMirror));
        start(&mut tasks, client("disruption-controller"), Box::new(disruption::Disruption::new(resources.clone())));
        start(&mut tasks, client("persistentvolume-binder"), Box::new(volume_binder::VolumeBinder));
        start(&mut tasks, client("service-cidr-controller"), Box::new(service_cidrs::ServiceCidrs));
        start(&mut tasks, client("kube-scheduler"), Box::<scheduler::Scheduler>::default());
        let server = client("").with_user_agent("kube-apiserver").unwrap_or_else(|_| client(""));
        start(&mut tasks, server.clone(), Box::new(definitions::Definitions));
        start(&mut tasks, server, Box::new(registrations::Registrations));
        let pods = feeds.follow(&[control::Source::all(kinds::PODS)]);
        let feeds = feeds.run(client("shared-informers"));
        tasks.spawn(stop.clone().run_until_cancelled_owned(feeds).map(drop));
        let collect = garbage::run(client("generic-garbage-collector"), resources, pods);
        tasks.spawn(stop.clone().run_until_cancelled_owned(collect).map(drop));
        Controllers { tasks, stop }
    }

    /// Ends all controllers and waits for them.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
