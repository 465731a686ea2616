//! Leader election: of several copies of a program one leads, as a Lease says. With client-go's rules and times, so that copies
//! in other languages can take part. Never leads longer than others believe it does.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::api::Api;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::resource::{ApiResource, Dynamic};
use crate::retry::random;
use crate::time;

const LEASES: ApiResource = ApiResource::new("coordination.k8s.io", "v1", "Lease", "leases", true);
/// Tries are spread by up to this much of the period, so that copies that started together do not collide for ever.
const JITTER: f64 = 1.2;
/// How long giving the lease up may take, in the end.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(5);

/// One of several that want to lead. See [`Election::lead`].
#[derive(Clone)]
pub struct Election {
    leases: Api<Dynamic>,
    name: String,
    identity: String,
    times: Times,
}

/// The times of an election; all who take part should have the same. The defaults are client-go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long others wait after the leader's last sign of life: 15 s.
    pub lease_duration: Duration,
    /// How long a leader that cannot renew goes on: 10 s. Less than the lease's duration.
    pub renew_deadline: Duration,
    /// Between two tries: 2 s.
    pub retry_period: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// How leading ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Led<T> {
    /// The work is done.
    Finished(T),
    /// Somebody else leads, or may: the work was stopped.
    Lost,
}

/// The last lease that was seen, and when we saw it become so: the clocks of others say nothing.
struct Seen {
    spec: Value,
    at: Instant,
}

impl Election {
    /// Takes part in the election that the Lease of this name holds. `identity` is who we are: unique, such as the pod's name.
    ///
    /// # Errors
    /// [`Error::Request`] where the times cannot work.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, times: Times) -> Result<Election> {
        let wrong = |why: &str| Err(Error::Request(format!("no election can be held so: {why}")));
        if times.lease_duration <= times.renew_deadline {
            return wrong("lease_duration must be longer than renew_deadline");
        }
        if times.renew_deadline <= times.retry_period.mul_f64(JITTER) {
            return wrong("renew_deadline must be longer than retry_period times 1.2");
        }
        if times.lease_duration < Duration::from_secs(1) || identity.is_empty() {
            return wrong("lease_duration must be a second or more, and identity must not be empty");
        }
        let leases = Api::namespaced_of(client, namespace, &LEASES);
        Ok(Election { leases, name: name.to_string(), identity: identity.to_string(), times })
    }

    /// Waits to be the leader, then does the work for as long as that lasts. When the work ends the lease is given up, so that
    /// another leads at once. When the lease cannot be renewed in time the work is dropped where it stands: [`Led::Lost`].
    ///
    /// # Errors
    /// A refusal (403) of the Lease itself, before we lead; everything else is tried again.
    pub async fn lead<T>(&self, work: impl Future<Output = T>) -> Result<Led<T>> {
        let mut seen = None;
        loop {
            match self.try_to_lead(&mut seen).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if error.is_forbidden() => return Err(error),
                // Others were faster.
                Err(error) if error.is_conflict() || error.is_already_exists() => {}
                Err(error) => tracing::warn!(lease = self.name, %error, "the lease cannot be seen; trying again"),
            }
            sleep(self.times.retry_period.mul_f64(1.0 + (JITTER - 1.0) * random())).await;
        }
        tracing::info!(lease = self.name, identity = self.identity, "leading");
        let outcome = tokio::select! {
            outcome = work => Led::Finished(outcome),
            () = self.renew(&mut seen) => Led::Lost,
        };
        match outcome {
            Led::Finished(_) => {
                if timeout(RELEASE_TIME_MAX, self.release()).await.is_err() {
                    tracing::warn!(lease = self.name, "the lease was not given up in time; it runs out by itself");
                }
            }
            Led::Lost => tracing::warn!(lease = self.name, identity = self.identity, "leading no longer"),
        }
        Ok(outcome)
    }

    /// Who leads, as the lease says.
    ///
    /// # Errors
    /// Those of reading it.
    pub async fn leader(&self) -> Result<Option<String>> {
        let lease = self.leases.get_opt(&self.name).await?;
        Ok(lease
            .and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_string))
            .filter(|id| !id.is_empty()))
    }

    /// Renews the lease for as long as that works in time and nobody else has it.
    async fn renew(&self, seen: &mut Option<Seen>) {
        loop {
            sleep(self.times.retry_period).await;
            let renewed = async {
                loop {
                    match self.try_to_lead(seen).await {
                        Ok(leads) => return leads,
                        Err(error) => tracing::warn!(lease = self.name, %error, "the lease is not renewed"),
                    }
                    sleep(self.times.retry_period).await;
                }
            };
            if !timeout(self.times.renew_deadline, renewed).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// One try to hold the lease for another while. `false`: somebody else does.
    async fn try_to_lead(&self, seen: &mut Option<Seen>) -> Result<bool> {
        let now = time::now();
        let ours = json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.times.lease_duration.as_secs(),
            "acquireTime": time::micros(now),
            "renewTime": time::micros(now),
            "leaseTransitions": 0,
        });
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            let lease = json!({"metadata": {"name": self.name, "namespace": self.leases.namespace()}, "spec": ours});
            let made = self.leases.create(&Dynamic(lease)).await?;
            *seen = Some(Seen { spec: made["spec"].clone(), at: Instant::now() });
            return Ok(true);
        };
        let spec = &lease["spec"];
        if seen.as_ref().is_none_or(|seen| seen.spec != *spec) {
            *seen = Some(Seen { spec: spec.clone(), at: Instant::now() });
        }
        let last_change = seen.as_ref().map_or_else(Instant::now, |seen| seen.at);
        let held = spec["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty());
        let duration = Duration::from_secs(spec["leaseDurationSeconds"].as_u64().unwrap_or_default());
        if held && !self.is_ours(spec) && last_change.elapsed() < duration {
            return Ok(false);
        }
        let transitions = spec["leaseTransitions"].as_u64().unwrap_or_default();
        let mut next = ours;
        if self.is_ours(spec) {
            next["acquireTime"] = spec["acquireTime"].clone();
            next["leaseTransitions"] = transitions.into();
        } else {
            next["leaseTransitions"] = (transitions + 1).into();
        }
        // With the revision that was read: of two who try only one is heard.
        lease["spec"] = next;
        let written = self.leases.replace(&lease).await?;
        *seen = Some(Seen { spec: written["spec"].clone(), at: Instant::now() });
        Ok(true)
    }

    async fn release(&self) {
        let given_up = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            if !self.is_ours(&lease["spec"]) {
                return Ok(());
            }
            lease["spec"]["holderIdentity"] = "".into();
            lease["spec"]["leaseDurationSeconds"] = 1.into();
            lease["spec"]["renewTime"] = time::micros(time::now()).into();
            self.leases.replace(&lease).await.map(drop)
        };
        if let Err(error) = given_up.await {
            tracing::warn!(lease = self.name, %error, "the lease was not given up; it runs out by itself");
        }
    }

    fn is_ours(&self, spec: &Value) -> bool {
        spec["holderIdentity"] == self.identity.as_str()
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Election({} as {})", self.name, self.identity)
    }
}
