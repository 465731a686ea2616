//! Pods that outlive the agent: what of them is written down for the next agent, and how that one goes on with them. The files
//! have the environment of containers in them, secrets too, and are the agent's user's alone.

use super::{RunningContainer, Worker, group_name};
use crate::console::{self, Ends, Wanted};
use crate::decide::{HOST_IMAGE_ID, State};
use crate::images::{self as image_choice, Choice, Files};
use crate::logs::Log;
use crate::pod::{Container, Terminated};
use crate::probe::{ProbeKind, Target};
use crate::remote::Running;
use crate::runtime::{Adopted, LeftContainer};
use crate::sandbox::ProcessSpec;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is written down of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    pub address: Option<Ipv4Addr>,
    /// The last start of each container, by its name.
    containers: HashMap<String, KeptContainer>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptContainer {
    pub attempt: u32,
    pub id: String,
    pub image_id: String,
    pub since_ms: i64,
    pub spec: Arc<ProcessSpec>,
    pub wanted: Wanted,
    /// How it ended before this start.
    #[serde(default)]
    pub last: Option<Terminated>,
}

/// A pod that an agent before this one has left, and what it wrote down.
pub struct LeftPod {
    pub adopted: Adopted,
    pub kept: Kept,
}

/// Where a pod's init waits for the next agent, in the pod's folder.
pub fn control_of(folder: &Path) -> PathBuf {
    folder.join("control")
}

impl Kept {
    /// What is written down in a pod's folder.
    pub fn read(folder: &Path) -> Option<Kept> {
        serde_json::from_slice(&fs::read(folder.join(NAME)).ok()?).ok()
    }

    /// Writes it down: whole, or not at all.
    fn write(&self, folder: &Path) -> std::io::Result<()> {
        let new = folder.join(format!("{NAME}.new"));
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(new, folder.join(NAME))
    }
}

const NAME: &str = "state.json";

impl Worker {
    /// Writes down that a container is about to be started.
    pub(super) fn keep_container(&mut self, name: &str, container: KeptContainer) -> std::io::Result<()> {
        self.kept.containers.insert(name.to_owned(), container);
        self.keep()
    }

    /// The same of what its engine calls it.
    pub(super) fn rename_kept(&mut self, name: &str, id: String) -> std::io::Result<()> {
        if let Some(entry) = self.kept.containers.get_mut(name) {
            entry.id = id;
        }
        self.keep()
    }

    /// Writes down what the next agent has to know, where there may be one.
    pub(super) fn keep(&self) -> std::io::Result<()> {
        if self.shared.config.keep { self.kept.write(&self.dir) } else { Ok(()) }
    }

    /// Nothing of the pod runs any more, and nothing is to be gone on with.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(control_of(&self.dir));
        let _ = fs::remove_file(self.dir.join(NAME));
    }

    /// Goes on with what another agent has left.
    pub(super) fn adopt(&mut self, left: LeftPod) {
        let LeftPod { adopted, kept } = left;
        self.kept = kept;
        self.engine = adopted.engine;
        if let Err(error) = self.enter(adopted.pod, self.kept.address) {
            tracing::warn!(%error, pod = self.pod.metadata.name, "a pod's addresses are not served any more");
        }
        let pod = self.pod.clone();
        for container in pod.spec.all_containers() {
            let Some(entry) = self.kept.containers.get(&container.name).cloned() else { continue };
            let name = group_name(&container.name, entry.attempt);
            let Some(at) = adopted.left.iter().position(|left| left.name == name) else {
                self.go_on_before(&container.name, entry);
                continue;
            };
            let known = self.pod.status.all_containers().find(|known| known.name == container.name);
            // It may have ended, and that have been told, before the agent did.
            let told = known.is_some_and(|known| {
                let ended = known.state.terminated.as_ref().or(known.last_state.terminated.as_ref());
                ended.is_some_and(|ended| ended.container_id == entry.id)
            });
            if !told {
                self.go_on(container, entry, &adopted.left[at]);
            }
        }
    }

    /// Goes on with a container that was to be started again, and was not any more: it is as it was before.
    fn go_on_before(&mut self, container: &str, entry: KeptContainer) {
        let record = self.records.iter_mut().find(|record| record.name == container);
        let (Some(record), Some(last)) = (record, entry.last) else { return };
        record.restarts = entry.attempt.saturating_sub(1);
        record.id = last.container_id.clone();
        record.state = State::Ended(last);
        let log = self.log_before(container, entry.attempt);
        self.note_log(container, |logs| logs.current = log);
    }

    /// What a container printed that ended and was started again, as often as this by now.
    fn log_before(&self, container: &str, attempt: u32) -> Option<Arc<Log>> {
        self.ended_log(container, attempt.checked_sub(1)?)
    }

    /// What a container printed that ended under another agent.
    fn ended_log(&self, container: &str, attempt: u32) -> Option<Arc<Log>> {
        let path = self.log_of(container, attempt);
        let log = path.exists().then(|| Log::reopen(path).ok()).flatten()?;
        log.close();
        Some(log)
    }

    /// The file of what a container prints that was started again so often.
    pub(super) fn log_of(&self, container: &str, attempt: u32) -> PathBuf {
        self.dir.join("logs").join(format!("{container}_{attempt}.log"))
    }

    fn go_on(&mut self, container: &Arc<Container>, entry: KeptContainer, left: &LeftContainer) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        let path = self.log_of(&container.name, entry.attempt);
        let kept: Vec<_> = left.kept.iter().filter_map(|fd| fd.try_clone().ok()).collect();
        // One that ended long ago has nothing to read any more: all of it is in the log.
        let is_read = kept.is_empty() && left.ended.is_some();
        let streams = match self.engine.is_some() || is_read {
            true => Ends::Elsewhere.open(entry.wanted),
            false => console::reopen(kept, entry.wanted),
        };
        let log = if self.engine.is_some() { Log::of_engine(path) } else { Log::reopen(path) };
        let capture = log.and_then(|log| Ok((log, streams?)));
        let capture = match capture {
            Ok((log, (console, outputs))) => Some((log, console, outputs)),
            Err(error) => {
                tracing::warn!(%error, container = container.name, "a container's output cannot be read any more");
                None
            }
        };
        let log = capture.as_ref().map(|(log, ..)| log.clone());
        if let (Some(engine), Some(log)) = (left.process.engine(), &log) {
            engine.keep_log(log.clone());
        }
        let console = capture.as_ref().map(|(_, console, _)| console.clone());
        let (current, previous) = (log.clone(), self.log_before(&container.name, entry.attempt));
        self.note_log(&container.name, |logs| (logs.current, logs.previous) = (current, previous));
        let known = self.pod.status.all_containers().find(|known| known.name == container.name).cloned();
        let since = Timestamp::from_millisecond(entry.since_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let Some(record) = self.records.iter_mut().find(|record| record.name == container.name) else { return };
        record.restarts = entry.attempt;
        record.last = entry.last.or(record.last.take());
        record.id = entry.id;
        record.image_id = entry.image_id;
        record.state = State::Running { since };
        record.applied = Some(record.allocated.clone());
        record.started = container.startup_probe.is_none() || known.as_ref().is_some_and(|it| it.started == Some(true));
        record.ready =
            record.started && (container.readiness_probe.is_none() || known.as_ref().is_some_and(|it| it.ready));
        let started = record.started;
        let target = Arc::new(Target {
            pod: sandbox,
            process: left.process.clone(),
            container: container.clone(),
            spec: entry.spec,
            pod_ip: self.facts.pod_ip.parse().ok(),
            host_network: self.pod.spec.host_network,
        });
        let running = Running { target: target.clone(), console, since };
        self.note_reachable(|pod| drop(pod.containers.insert(container.name.clone(), running)));
        let running = RunningContainer {
            attempt: entry.attempt,
            process: left.process.clone(),
            target,
            log,
            message: self.dir.join(format!("{}.message", container.name)),
            probes: Vec::new(),
            stopping: false,
            _files: self.files_held(container),
        };
        self.running.insert(container.name.clone(), Box::new(running));
        self.watch_exit(container.name.clone(), entry.attempt, left.process.clone(), capture, None, left.ended);
        if left.ended.is_none() {
            let kinds: &[ProbeKind] = match started {
                true => &[ProbeKind::Liveness, ProbeKind::Readiness],
                false => &[ProbeKind::Startup],
            };
            self.start_probes(&container.name, kinds);
        }
    }

    /// What a container runs from already.
    fn files_held(&self, container: &Container) -> Files {
        if container.image == HOST_IMAGE_ID {
            return Files::Host;
        }
        let held = Container { image_pull_policy: "IfNotPresent".into(), ..container.clone() };
        match image_choice::choose(&held, &self.shared.config.images) {
            Choice::Use(files) => files,
            _ => Files::Host,
        }
    }

    /// The logs of containers that ended under another agent.
    pub(super) fn find_logs(&self) {
        for known in self.pod.status.all_containers().filter(|known| known.state.terminated.is_some()) {
            if let Some(log) = self.ended_log(&known.name, known.restart_count) {
                let previous = self.log_before(&known.name, known.restart_count);
                self.note_log(&known.name, |logs| (logs.current, logs.previous) = (Some(log), previous));
            }
        }
    }
}

/// Nothing but what its logs are is left of a pod that nobody runs any more.
pub fn clear_but_logs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.file_name() != "logs") {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = images::remove_tree(&entry.path());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// An agent's pods that another has left, by their uid.
pub type LeftPods = BTreeMap<String, LeftPod>;

/// Takes over what another agent has left in a folder of pods.
pub async fn take_over(runtime: &Arc<dyn crate::runtime::Runtime>, folder: &Path) -> LeftPods {
    let mut pods = LeftPods::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(uid)) = (entry.path(), entry.file_name().into_string()) else { continue };
        let Some(kept) = Kept::read(&path) else {
            clear_but_logs(&path);
            continue;
        };
        match runtime.adopt(&uid, control_of(&path), kept.address).await {
            Ok(adopted) => drop(pods.insert(uid, LeftPod { adopted, kept })),
            Err(error) => {
                tracing::debug!(%error, uid, "a pod has ended with its agent");
                clear_but_logs(&path);
            }
        }
    }
    pods
}
