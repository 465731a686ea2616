//! The pods of a server, followed by a watch: what a test waits for is told, and is seen when it happens.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Server;
use crate::server::request;

/// Events that wait to be looked at; then the server waits.
const EVENTS_MAX: usize = 1024;
/// How long a watch may say nothing. It ends with its server.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// Where the pods of namespace `default` are.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// Pods by name, as they were told last.
pub type Pods = BTreeMap<String, Value>;

/// The pods of namespace `default`.
pub struct Follow {
    events: Receiver<Value>,
    pods: Pods,
}

impl Follow {
    /// Begins to follow them.
    #[track_caller]
    pub fn pods(server: &Server) -> Follow {
        let watch = format!("GET {PODS}?watch=1&timeoutSeconds={}", SILENCE_MAX.as_secs() * 24);
        let mut connection = server.endpoint.connect(SILENCE_MAX).expect("it listens");
        connection.write(&request("admin", &watch).encode()).expect("it reads");
        let head = connection.head().expect("an answer");
        let (tell, events) = sync_channel(EVENTS_MAX);
        // It ends with the server, or with the first event that nobody wants any more.
        std::thread::spawn(move || {
            for line in BufReader::new(connection.body(&head, false)).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { return };
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        Follow { events, pods: Pods::new() }
    }

    /// The pods as far as is known now.
    pub fn news(&mut self) -> &Pods {
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        &self.pods
    }

    /// Waits for an event, for a while.
    pub fn wait(&mut self, limit: Duration) {
        if let Ok(event) = self.events.recv_timeout(limit) {
            self.take(event);
        }
    }

    /// Waits until something holds; false if it never did.
    pub fn until(&mut self, limit: Duration, holds: impl Fn(&Pods) -> bool) -> bool {
        let began = Instant::now();
        while !holds(&self.pods) {
            let Some(left) = limit.checked_sub(began.elapsed()) else { return false };
            self.wait(left);
        }
        true
    }

    fn take(&mut self, mut event: Value) {
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("DELETED") => drop(self.pods.remove(&name)),
            Some("ADDED" | "MODIFIED") => drop(self.pods.insert(name, event["object"].take())),
            _ => {}
        }
    }
}

/// The phase of a pod.
pub fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}
