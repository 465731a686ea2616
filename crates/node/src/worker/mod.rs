//! The life of one pod: its worker prepares it, does what `decide` says, tells the status, and ends it. One task per pod
//! owns all of it; what runs beside (readers of pipes, probes, servers of its sockets) reports to it by messages.

mod adopt;
mod certificates;
mod ending;
mod files;
mod prepare;
mod probing;
mod resize;
mod spec;
mod start;

use self::adopt::{Kept, LeftPod};
pub use self::adopt::{LeftPods, take_over};
use self::certificates::{Certificates, Certified};
use self::files::{Token, mount_failed};
use crate::agent::{ContainerLogs, Shared, lock};
use crate::decide::{self, Action, Facts, Record, State, time};
use crate::env::{ObjectKind, Objects};
use crate::followed::Known;
use crate::images::Files;
use crate::logs::Log;
use crate::pod::{Pod, PodStatus, Terminated};
use crate::probe::{ProbeKind, Target};
use crate::provided::Provided;
use crate::remote::Reachable;
use crate::runtime::{Engine, RunningPod, RunningProcess};
use crate::sandbox::Exit;
use crate::{isolation, usage, volumes};
use jiff::{SignedDuration, Timestamp};
use kemudi_client::{Api, Patch};
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Messages of a pod's tasks that wait for its worker; a task with more waits itself.
const MESSAGES_MAX: usize = 128;
/// The pause before a status or a token is tried again.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// How often the use of volumes with a limit is looked at, as the kubelet does: no file system tells of it.
const USAGE_PERIOD: SignedDuration = SignedDuration::from_secs(10);
/// What is read of a termination message, in bytes, and of the log that stands in for it.
const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_MESSAGE_BYTES_MAX: usize = 2048;
const LOG_MESSAGE_LINES_MAX: u64 = 80;

/// The newest of a pod that the watch told.
#[derive(Clone)]
pub struct Update {
    pub pod: Arc<Pod>,
    /// The object is no more.
    pub gone: bool,
}

/// Leads a pod through its life; returns when nothing of it is left on the node. `first` has the status that the pod had before, which
/// later updates have not.
pub async fn run(shared: Arc<Shared>, first: Update, updates: watch::Receiver<Update>, left: Option<LeftPod>) {
    let (sender, messages) = mpsc::channel(MESSAGES_MAX);
    let pod = first.pod;
    let records: Vec<Record> = pod.spec.all_containers().map(|container| Record::new(container)).collect();
    let mut worker = Worker {
        api: Api::namespaced(shared.config.client.clone(), &pod.metadata.namespace),
        dir: shared.config.state_dir.join("pods").join(&pod.metadata.uid),
        facts: Facts { host_ip: shared.facts.host_ip.clone(), ..Facts::default() },
        published: pod.status.clone(),
        gone: first.gone,
        shared,
        pod,
        updates,
        records,
        sender,
        messages,
        sandbox: None,
        engine: None,
        handler: String::new(),
        address: None,
        tasks: JoinSet::new(),
        running: HashMap::new(),
        pulled: HashMap::new(),
        objects: Objects::new(),
        revisions: HashMap::new(),
        provided: HashMap::new(),
        usage_at: Timestamp::UNIX_EPOCH,
        room: None,
        tokens: HashMap::new(),
        certificates: Certificates::default(),
        mounted: false,
        unpublished: false,
        told: watch::Sender::new(true),
        kept: Kept::default(),
    };
    worker.life(left).await;
}

struct Worker {
    shared: Arc<Shared>,
    api: Api<Pod>,
    pod: Arc<Pod>,
    gone: bool,
    updates: watch::Receiver<Update>,
    /// Init containers, then containers.
    records: Vec<Record>,
    facts: Facts,
    published: PodStatus,
    /// The newest status has not been taken by the server yet.
    unpublished: bool,
    /// False while containers are being started and the status does not say so yet.
    told: watch::Sender<bool>,
    /// In boxes: a channel has room for many from its beginning, and each pod has one.
    sender: mpsc::Sender<Box<Message>>,
    messages: mpsc::Receiver<Box<Message>>,
    sandbox: Option<Arc<dyn RunningPod>>,
    /// Who has its images and writes its logs, if not the agent.
    engine: Option<Arc<dyn Engine>>,
    /// The handler of its RuntimeClass.
    handler: String,
    address: Option<Ipv4Addr>,
    /// Everything that runs for the pod beside the worker; ends with it.
    tasks: JoinSet<()>,
    /// In boxes: a map has room for several from its first on.
    running: HashMap<String, Box<RunningContainer>>,
    /// Images that were pulled for containers that have not been started since.
    pulled: HashMap<String, Files>,
    /// What volumes are made of.
    objects: Objects,
    /// As of when that is.
    revisions: HashMap<(ObjectKind, String), u64>,
    /// Claims and images that are volumes, by the volume's name.
    provided: HashMap<String, Provided>,
    /// When the use of volumes is looked at next.
    usage_at: Timestamp,
    /// Others have what the pod asks for; this changes when they give something back.
    room: Option<watch::Receiver<u64>>,
    /// By volume and path.
    tokens: HashMap<(String, String), Token>,
    certificates: Certificates,
    /// The volumes are written; from now on what they are made of is followed.
    mounted: bool,
    dir: PathBuf,
    /// What the next agent is told.
    kept: Kept,
}

struct RunningContainer {
    attempt: u32,
    process: Arc<dyn RunningProcess>,
    target: Arc<Target>,
    log: Option<Arc<Log>>,
    message: PathBuf,
    /// Its probes; they end with it.
    probes: Vec<AbortHandle>,
    stopping: bool,
    /// Its image is not removed while it runs.
    _files: Files,
}

/// What the pod's tasks tell its worker.
enum Message {
    Exited {
        container: String,
        attempt: u32,
        exit: Exit,
        /// Where it was before now.
        at: Option<Timestamp>,
    },
    Probed {
        container: String,
        attempt: u32,
        kind: ProbeKind,
        healthy: bool,
    },
    Object {
        kind: ObjectKind,
        name: String,
        known: Known,
    },
    Certified(Certified),
    Pulled {
        container: String,
        outcome: Result<Files, String>,
        took: Duration,
        waited: Duration,
    },
    /// Something may go better now.
    Again,
}

impl Worker {
    async fn life(&mut self, left: Option<LeftPod>) {
        let over = matches!(self.pod.status.phase.as_str(), "Succeeded" | "Failed");
        self.remember();
        self.find_logs();
        if let Some(left) = left {
            self.adopt(left);
            if let Err(why) = Box::pin(self.publish_ports()).await {
                tracing::warn!(why, pod = self.pod.metadata.name, "a pod's ports of the host are not served any more");
            }
        }
        let rejection = isolation::rejection(&self.pod).filter(|_| !over);
        if let Some((reason, message)) = &rejection {
            self.shared.events.warning(&self.pod, None, reason, message);
            self.facts.ended = Some(((*reason).into(), format!("Pod was rejected: {message}")));
        }
        if !over {
            self.note_promise();
        }
        // What a pod does only now and then has its room then only: there are many pods, and most of them wait.
        if rejection.is_none() && !over && !self.leaving() && Box::pin(self.prepare()).await {
            self.live().await;
        }
        if self.leaving() && !over {
            Box::pin(self.terminate()).await;
        }
        if !over {
            Box::pin(self.tell_end()).await;
        }
        Box::pin(self.tear_down()).await;
        self.shared.promises.take_back(&self.pod.metadata.uid);
        while !self.leaving() {
            match self.updates.changed().await {
                Ok(()) => self.take_update(),
                Err(_) => return,
            }
        }
        Box::pin(self.delete()).await;
        lock(&self.shared.logs).remove(&self.key());
        let _ = images::remove_tree(&self.dir);
    }

    /// Tells how the pod has ended, as often as it takes: until the server knows, its init is the only one who could tell the next
    /// agent. Who is to go is told once: nobody will ask any more.
    async fn tell_end(&mut self) {
        self.publish().await;
        while self.unpublished && !self.leaving() {
            tokio::select! {
                changed = self.updates.changed() => match changed {
                    Ok(()) => self.take_update(),
                    Err(_) => return,
                },
                () = sleep_until(Timestamp::now() + TRY_AGAIN) => {}
            }
            self.publish().await;
        }
    }

    /// After a restart of the agent: what ran then is gone, and counts as ended.
    fn remember(&mut self) {
        let status = &self.pod.status;
        self.facts.start_time = status.start_time.clone();
        let known: Vec<_> = status.all_containers().cloned().collect();
        for known in known {
            let Some(record) = self.records.iter_mut().find(|record| record.name == known.name) else { continue };
            record.restarts = known.restart_count;
            record.crashes = known.restart_count;
            record.last = known.last_state.terminated;
            record.id = known.container_id.clone();
            let ended = match (known.state.running, known.state.terminated) {
                (_, Some(terminated)) => terminated,
                (Some(running), None) => Terminated {
                    exit_code: 137,
                    reason: "ContainerStatusUnknown".into(),
                    message: "The container could not be located when the pod was terminated".into(),
                    started_at: running.started_at,
                    finished_at: Some(time(Timestamp::now())),
                    container_id: known.container_id,
                    signal: None,
                },
                (None, None) => continue,
            };
            record.state = State::Ended(ended);
        }
    }

    fn leaving(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn key(&self) -> (String, String) {
        (self.pod.metadata.namespace.clone(), self.pod.metadata.name.clone())
    }

    fn take_update(&mut self) {
        let update = self.updates.borrow_and_update().clone();
        self.gone = update.gone;
        self.pod = update.pod;
        // Ephemeral containers come while the pod runs, and stay.
        for container in self.pod.spec.all_containers().skip(self.records.len()) {
            self.records.push(Record::new(container));
        }
    }

    // ---- while containers run

    /// Does what is to be done until the pod is over or to go.
    async fn live(&mut self) {
        loop {
            if self.leaving() {
                return;
            }
            let now = Timestamp::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                let message = "Pod was active on the node longer than the specified deadline";
                self.facts.ended = Some(("DeadlineExceeded".into(), message.into()));
                self.shared.events.normal(&self.pod, None, "DeadlineExceeded", message);
                Box::pin(self.terminate()).await;
                return;
            }
            if usage::is_limited(&self.pod) && Box::pin(self.evict_for_usage(now)).await {
                return;
            }
            self.resize().await;
            let plan = decide::decide(&self.pod, &self.records, now);
            let mut over = false;
            let mut again = false;
            if plan.actions.iter().any(|action| matches!(action, Action::Start { .. })) {
                self.told.send_replace(false);
            }
            for action in plan.actions {
                match action {
                    Action::Start { container } => again |= !Box::pin(self.start(&container)).await,
                    Action::StopSidecars => self.stop_all(self.grace()),
                    Action::Finish => over = true,
                }
            }
            self.publish().await;
            self.told.send_replace(true);
            if over {
                return;
            }
            if again {
                continue;
            }
            let tokens = self.tokens.values().map(|token| token.replace_at).min();
            let retry = self.unpublished.then(|| now + TRY_AGAIN);
            let usage = usage::is_limited(&self.pod).then_some(self.usage_at);
            let wake = [plan.wake, deadline, tokens, retry, usage].into_iter().flatten().min();
            if !self.wait(wake).await {
                return;
            }
            Box::pin(self.replace_tokens(Timestamp::now())).await;
        }
    }

    /// Ends the pod if one of its volumes holds more than it may.
    async fn evict_for_usage(&mut self, now: Timestamp) -> bool {
        if now < self.usage_at {
            return false;
        }
        self.usage_at = now + USAGE_PERIOD;
        let (pod, folder) = (self.pod.clone(), self.dir.join("volumes"));
        let look = tokio::task::spawn_blocking(move || usage::exceeded(&pod, &folder));
        let Ok(Some(message)) = look.await else { return false };
        self.shared.events.warning(&self.pod, None, EVICTED, &message);
        self.facts.ended = Some((EVICTED.into(), message));
        self.terminate().await;
        true
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.active_deadline_seconds?;
        let start: Timestamp = self.facts.start_time.as_ref()?.parse().ok()?;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Waits for a message, an update or the time. False if the agent ends.
    async fn wait(&mut self, wake: Option<Timestamp>) -> bool {
        let wake = wake.unwrap_or(Timestamp::MAX);
        tokio::select! {
            Some(message) = self.messages.recv() => self.take_message(*message),
            changed = self.updates.changed() => {
                if changed.is_err() {
                    return false;
                }
                let before = self.pod.clone();
                self.take_update();
                self.refresh_pod_files(&before);
            }
            () = changed(&mut self.room) => {}
            () = sleep_until(wake) => {}
        }
        while let Ok(message) = self.messages.try_recv() {
            self.take_message(*message);
        }
        true
    }

    /// Labels and annotations show in files.
    fn refresh_pod_files(&mut self, before: &Pod) {
        let (old, new) = (&before.metadata, &self.pod.metadata);
        if old.labels == new.labels && old.annotations == new.annotations {
            return;
        }
        for volume in self.pod.clone().spec.volumes.iter().filter(|volume| volumes::shows_pod(volume)) {
            let _ = self.write_volume(volume);
        }
    }

    fn take_message(&mut self, message: Message) {
        match message {
            Message::Exited { container, attempt, exit, at } => {
                self.note_exit(&container, attempt, exit, at.unwrap_or_else(Timestamp::now));
            }
            Message::Probed { container, attempt, kind, healthy } => {
                self.note_probe(&container, attempt, kind, healthy)
            }
            Message::Certified(news) => self.note_certified(news),
            Message::Pulled { container, outcome, took, waited } => self.note_pulled(&container, outcome, took, waited),
            Message::Again => {}
            Message::Object { kind, name, known } => {
                let key = (kind, name);
                if !self.note_object(&key, known) {
                    return;
                }
                for volume in
                    self.pod.clone().spec.volumes.iter().filter(|volume| volumes::references(volume).contains(&key))
                {
                    // What is gone or broken keeps the files as they were.
                    if let Err(error) = self.write_volume(volume) {
                        self.shared.events.warning(&self.pod, None, "FailedMount", &mount_failed(&volume.name, &error));
                    }
                }
            }
        }
    }

    /// Notes what is known of an object; false if it is nothing new.
    fn note_object(&mut self, key: &(ObjectKind, String), known: Known) -> bool {
        // What was asked for may be newer than what is followed.
        let revision = self.revisions.entry(key.clone()).or_default();
        if known.revision < *revision {
            return false;
        }
        *revision = known.revision;
        if self.objects.get(key) == known.data.as_ref() {
            return false;
        }
        match known.data {
            Some(data) => drop(self.objects.insert(key.clone(), data)),
            None => drop(self.objects.remove(key)),
        }
        true
    }

    fn note_exit(&mut self, container: &str, attempt: u32, exit: Exit, now: Timestamp) {
        if self.running.get(container).is_none_or(|known| known.attempt != attempt) {
            return;
        }
        let Some(ended) = self.running.remove(container) else { return };
        self.note_reachable(|pod| drop(pod.containers.remove(container)));
        ended.probes.iter().for_each(AbortHandle::abort);
        let Some(record) = self.records.iter_mut().find(|record| record.name == container) else { return };
        let started_at = match record.state {
            State::Running { since } => Some(time(since)),
            _ => None,
        };
        let mut message = read_message(&ended.message);
        let from_log = ended.target.container.termination_message_policy == "FallbackToLogsOnError";
        if let (true, true, Some(log)) = (message.is_empty() && from_log, exit.code() != 0, &ended.log) {
            message = log.tail(LOG_MESSAGE_LINES_MAX, LOG_MESSAGE_BYTES_MAX);
        }
        // The group's own count says so; that signal 9 came may have other reasons.
        let reason = match (ended.process.out_of_memory(), exit.code()) {
            (true, _) => OUT_OF_MEMORY,
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        let terminated = Terminated {
            exit_code: exit.code(),
            signal: None,
            reason: reason.into(),
            message,
            started_at,
            finished_at: Some(time(now)),
            container_id: record.id.clone(),
        };
        record.end(terminated, now);
        let process = ended.process;
        self.tasks.spawn(async move { process.clear().await });
        let crashes = record.crashes;
        if crashes > 0 && self.pod.spec.restart_policy != crate::pod::RestartPolicy::Never && !self.facts.terminating {
            let message = format!("Back-off restarting failed container {container} in pod {}", self.full_name());
            self.shared.events.warning(&self.pod, Some(container), "BackOff", &message);
        }
    }

    // ---- what others see

    /// Tells the server the status, if it has changed.
    async fn publish(&mut self) {
        let now = Timestamp::now();
        let status = decide::status(&self.pod, &self.records, &self.facts, &self.published, now);
        if self.gone || status == self.published {
            self.unpublished = false;
            return;
        }
        self.tell_pull_back_off(&status);
        let patch = patch_of(&self.pod.metadata.uid, &self.published, &status);
        let patch = Patch::Strategic(&patch);
        match Box::pin(self.api.patch_status(&self.pod.metadata.name, &patch)).await {
            Ok(_) => {
                self.published = status;
                self.unpublished = false;
            }
            Err(error) if error.is_not_found() || error.is_conflict() => self.unpublished = false,
            Err(error) => {
                tracing::debug!(%error, pod = self.pod.metadata.name, "a status could not be told yet");
                self.unpublished = true;
            }
        }
    }

    /// An event when the words of a container's status change from an image that could not be pulled to a pause.
    fn tell_pull_back_off(&self, status: &PodStatus) {
        let pauses = |status: &PodStatus, name: &str| {
            let mut all = status.all_containers();
            all.any(|it| it.name == name && it.state.waiting.as_ref().is_some_and(|it| it.reason == PULL_BACK_OFF))
        };
        for container in self.pod.spec.all_containers() {
            let name = container.name.as_str();
            if pauses(status, name) && !pauses(&self.published, name) {
                let message = format!("Back-off pulling image {:?}", container.image);
                self.shared.events.normal(&self.pod, Some(name), "BackOff", &message);
                self.shared.events.warning(&self.pod, Some(name), "Failed", &format!("Error: {PULL_BACK_OFF}"));
            }
        }
    }

    fn note_waiting(&self, reason: &str) {
        for record in &self.records {
            self.note_log(&record.name, |logs| logs.waiting = reason.to_owned());
        }
    }

    fn note_log(&self, container: &str, note: impl FnOnce(&mut ContainerLogs)) {
        note(lock(&self.shared.logs).entry(self.key()).or_default().entry(container.to_owned()).or_default());
    }

    fn note_reachable(&self, note: impl FnOnce(&mut Reachable)) {
        if let Some(pod) = lock(&self.shared.reachable).get_mut(&self.key()) {
            note(pod);
        }
    }

    /// `name_namespace`, as messages name a pod.
    fn full_name(&self) -> String {
        format!("{}_{}", self.pod.metadata.name, self.pod.metadata.namespace)
    }
}

/// Conditions that are not there when nothing is to be said.
const PASSING_CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];
/// The reason of a container that the kernel has ended as its group had no memory left.
const OUT_OF_MEMORY: &str = "OOMKilled";
/// The reason of a pod that took more than it may.
const EVICTED: &str = "Evicted";
/// The reason of a container that waits until its image is pulled again.
const PULL_BACK_OFF: &str = "ImagePullBackOff";

fn read_message(path: &Path) -> String {
    let mut text = Vec::new();
    let _ = fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, MESSAGE_BYTES_MAX), &mut text));
    String::from_utf8_lossy(&text).into_owned()
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// Until it changes: never, where there is nothing.
async fn changed(what: &mut Option<watch::Receiver<u64>>) {
    if let Some(what) = what
        && what.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn sleep_until(at: Timestamp) {
    let left = at.duration_since(Timestamp::now());
    tokio::time::sleep(left.try_into().unwrap_or(Duration::ZERO)).await;
}

/// What an attempt to run a container is called where its processes and groups are.
fn group_name(container: &str, attempt: u32) -> String {
    format!("{container}_{attempt}")
}

fn make_private(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A strategic patch to a status, which says of lists that are merged what is no longer in them.
fn patch_of(uid: &str, published: &PodStatus, status: &PodStatus) -> serde_json::Value {
    let mut patch = json!({"metadata": {"uid": uid}, "status": status});
    for gone in PASSING_CONDITIONS {
        let has = |status: &PodStatus| status.conditions.iter().any(|known| known.kind == gone);
        if let (true, false, Some(list)) = (has(published), has(status), patch["status"]["conditions"].as_array_mut()) {
            list.push(json!({"$patch": "delete", "type": gone}));
        }
    }
    // A pod that is made again, after its agent was killed for example, has another address.
    for (field, before, now) in
        [("podIPs", &published.pod_ips, &status.pod_ips), ("hostIPs", &published.host_ips, &status.host_ips)]
    {
        let gone = before.iter().filter(|old| now.iter().all(|new| new.ip != old.ip));
        if let Some(list) = patch["status"][field].as_array_mut() {
            list.extend(gone.map(|old| json!({"$patch": "delete", "ip": old.ip})));
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_from_merged_lists_is_said() {
        let check = |before: serde_json::Value, now: serde_json::Value, want: serde_json::Value| {
            let [before, now] = [before, now].map(|status| serde_json::from_value::<PodStatus>(status).unwrap());
            let patch = patch_of("u", &before, &now);
            for (field, want) in want.as_object().unwrap() {
                assert_eq!(&patch["status"][field], want);
            }
        };
        let at = |ip: &str| json!({"podIPs": [{"ip": ip}]});
        check(at("10.0.0.2"), at("10.0.0.2"), json!({"podIPs": [{"ip": "10.0.0.2"}]}));
        check(
            at("10.0.0.2"),
            at("10.0.0.4"),
            json!({"podIPs": [{"ip": "10.0.0.4"}, {"$patch": "delete", "ip": "10.0.0.2"}]}),
        );
        check(json!({}), at("10.0.0.4"), json!({"podIPs": [{"ip": "10.0.0.4"}]}));
    }
}
