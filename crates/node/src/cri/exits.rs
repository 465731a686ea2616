//! Who of a runtime's containers has ended, and how: the runtime's own word of it, awaited, never asked for again and again. A
//! runtime that tells nobody (containerd before 1.7 has no `GetContainerEvents`) is listened to as containerd's own clients do.

use super::client::{Client, DEADLINE_EXCEEDED, Error, NOT_FOUND, UNIMPLEMENTED};
use super::messages::{Any, ContainerEventResponse, ContainerEventType, ContainerState, Envelope, TaskExit};
use crate::agent::lock;
use crate::sandbox::Exit;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use prost::Message;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The pause before a runtime that has gone away is listened to again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const EXIT_TOPIC: &str = "/tasks/exit";
/// What is told of a container that is not there any more.
const LOST: Exit = Exit::Code(137);

/// How a container has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub exit: Exit,
    pub at: Timestamp,
    /// The runtime's: `OOMKilled`.
    pub reason: String,
}

/// Those whose end is waited for.
pub struct Exits {
    client: Arc<Client>,
    waiting: Mutex<HashMap<String, watch::Sender<Option<Ended>>>>,
}

impl Exits {
    pub fn new(client: Arc<Client>) -> Exits {
        Exits { client, waiting: Mutex::default() }
    }

    /// The end of a container, by its id. What has ended already is told once [`Exits::look`] has looked.
    pub fn follow(&self, id: &str) -> watch::Receiver<Option<Ended>> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, told| !told.is_closed());
        waiting.entry(id.to_owned()).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Whether a container has ended; then whoever waits is told.
    pub async fn look(&self, id: &str) -> Result<(), Error> {
        let ended = match self.client.container_status(id).await {
            Ok(status) if status.state == ContainerState::Exited as i32 => Ended {
                exit: Exit::Code(status.exit_code),
                at: Timestamp::from_nanosecond(status.finished_at.into()).unwrap_or_else(|_| Timestamp::now()),
                reason: status.reason,
            },
            Ok(_) => return Ok(()),
            Err(error) if error.code == NOT_FOUND => Ended { exit: LOST, at: Timestamp::now(), reason: String::new() },
            Err(error) => return Err(error),
        };
        if let Some(told) = lock(&self.waiting).remove(id) {
            told.send_replace(Some(ended));
        }
        Ok(())
    }

    /// Listens as long as it is run, to whatever of its ways the runtime has.
    pub async fn run(&self) {
        let mut own = false;
        loop {
            let listened = tokio::join!(self.look_at_all(), self.listen(own)).1;
            match listened {
                Err(error) if error.code == UNIMPLEMENTED && !own => own = true,
                Err(error) if error.code == UNIMPLEMENTED => {
                    tracing::error!(%error, "the container runtime tells nobody of containers that end: it has neither \
                        GetContainerEvents nor containerd's events; ends are not seen");
                    return;
                }
                other => {
                    let error = other.err().map(|error| error.to_string()).unwrap_or_default();
                    tracing::warn!(error, "the container runtime is not heard; it is listened to again soon");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// What ended while nobody listened.
    async fn look_at_all(&self) {
        let ids: Vec<String> = lock(&self.waiting).keys().cloned().collect();
        for id in ids {
            let _ = self.look(&id).await;
        }
    }

    async fn listen(&self, own: bool) -> Result<(), Error> {
        let mut answers = match own {
            false => self.client.container_events().await?,
            true => self.client.containerd_exits().await?,
        };
        // Each may have to wait for the runtime, and nobody else shall for it.
        let mut looks = FuturesUnordered::new();
        loop {
            let ended = tokio::select! {
                Some(()) = looks.next(), if !looks.is_empty() => continue,
                ended = async {
                    Ok::<_, Error>(match own {
                        false => answers.next::<ContainerEventResponse>().await?.map(stopped),
                        true => answers.next::<Envelope>().await?.map(exited),
                    })
                } => ended?,
            };
            let Some(ended) = ended else { return Ok(()) };
            if let Some(id) = ended.filter(|id| lock(&self.waiting).contains_key(id)) {
                looks.push(self.settle(id, own));
            }
        }
    }

    /// A container has ended; waits until the runtime knows how, and tells it. `own` is whether the runtime may not know of it yet.
    pub async fn settle(&self, id: String, own: bool) {
        if own {
            // containerd's own word comes before its CRI has written it down. To stop what has ended is to wait for that.
            match self.client.stop_container(&id, 0).await {
                Err(error) if error.code == DEADLINE_EXCEEDED => {
                    tracing::warn!(%error, id, "a container's end is late")
                }
                _ => {}
            }
        }
        if let Err(error) = self.look(&id).await {
            tracing::warn!(%error, id, "how a container has ended is not known");
        }
    }
}

/// The container that an event says has ended.
fn stopped(event: ContainerEventResponse) -> Option<String> {
    (event.container_event_type == ContainerEventType::Stopped as i32).then_some(event.container_id)
}

/// The same of containerd's own.
fn exited(envelope: Envelope) -> Option<String> {
    let Any { value, .. } = envelope.event.filter(|_| envelope.topic == EXIT_TOPIC)?;
    let exit = TaskExit::decode(value.as_slice()).ok()?;
    (exit.id == exit.container_id).then_some(exit.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let check = |topic: &str, id: &str, want: Option<&str>| {
            let exit = TaskExit { container_id: "a".into(), id: id.into() };
            let event = Any { type_url: "containerd.events.TaskExit".into(), value: exit.encode_to_vec() };
            assert_eq!(exited(Envelope { topic: topic.into(), event: Some(event) }).as_deref(), want);
        };
        check(EXIT_TOPIC, "a", Some("a"));
        // A command's, in the same container.
        check(EXIT_TOPIC, "exec-1", None);
        check("/tasks/start", "a", None);
        let event = |kind: ContainerEventType| ContainerEventResponse {
            container_id: "a".into(),
            container_event_type: kind as i32,
        };
        assert_eq!(stopped(event(ContainerEventType::Stopped)).as_deref(), Some("a"));
        assert_eq!(stopped(event(ContainerEventType::Started)), None);
    }
}
