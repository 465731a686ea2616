//! Starting a container: its image, its program, its streams, and the wait for its end.

use super::adopt::KeptContainer;
use super::{Message, RunningContainer, Worker, group_name};
use crate::console::{self, Console, Outputs, Wanted};
use crate::decide::{HOST_IMAGE_ID, State, time};
use crate::env::{Data, ObjectKind};
use crate::followed::data_of;
use crate::images as image_choice;
use crate::images::{Choice, Files};
use crate::logs::Log;
use crate::pod::{Container, Terminated};
use crate::probe::{ProbeKind, Target};
use crate::remote::{self, Running};
use crate::runtime::{ContainerPlan, RunningProcess};
use crate::sandbox::{ContainerSpec, Error as SandboxError, Exit, ProcessNamespace, Terminal};
use crate::{isolation, resources};
use futures_util::future::join_all;
use jiff::Timestamp;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

/// How long the output of a container that ended is waited for: a process it left may hold it open.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// The exit code of a container whose program could not be started.
const START_ERROR: i32 = 128;

/// Why a container is not running.
enum Problem {
    /// It cannot be put together as it is; that may change.
    Config(String),
    /// Its program cannot be started.
    Start(String),
}

impl Worker {
    /// Starts a container. False if it does not run, and what follows is to be decided anew.
    pub(super) async fn start(&mut self, name: &str) -> bool {
        let pod = self.pod.clone();
        let mut all = pod.spec.all_containers();
        let Some(container) = all.find(|container| container.name == name) else { return true };
        let Some(index) = self.records.iter().position(|record| record.name == name) else { return true };
        let before = self.records[index].clone();
        let again = matches!(before.state, State::Ended(_)) || before.last.is_some();
        let attempt = if again { before.restarts + 1 } else { 0 };
        let Some(files) = self.files_of(container, index).await else { return true };
        self.records[index].image_id = match &files {
            Files::Host => HOST_IMAGE_ID.into(),
            Files::Image(held) => {
                let named = images::reference(&container.image).ok();
                let pulled = named.as_ref().and_then(|name| held.image.digest_in(name));
                pulled.unwrap_or(&held.image.id).to_owned()
            }
            Files::Engine(image) => image.shown.clone(),
        };
        let id = new_id();
        let result = self.launch(container, attempt, files, &id).await;
        let now = Timestamp::now();
        let record = &mut self.records[index];
        if let State::Ended(terminated) = &before.state {
            record.last = Some(terminated.clone());
        }
        match result {
            Err(Problem::Config(message)) => {
                self.shared.events.warning(&pod, Some(name), "Failed", &format!("Error: {message}"));
                self.refuse(index, "CreateContainerConfigError", message);
                true
            }
            Err(Problem::Start(message)) => {
                let message = format!("failed to start container: {message}");
                record.restarts = attempt;
                record.crashes = before.crashes + u32::from(again);
                record.id = id;
                let terminated = Terminated {
                    exit_code: START_ERROR,
                    reason: "StartError".into(),
                    message: message.clone(),
                    started_at: Some(time(Timestamp::UNIX_EPOCH)),
                    finished_at: Some(time(now)),
                    container_id: record.id.clone(),
                    signal: None,
                };
                record.state = State::New;
                record.end(terminated, now);
                self.shared.events.warning(&pod, Some(name), "Failed", &format!("Error: {message}"));
                false
            }
            Ok(running) => {
                record.restarts = attempt;
                record.crashes = before.crashes + u32::from(again);
                record.id = running.process.engine().map_or(id, |engine| engine.name());
                record.state = State::Running { since: now };
                record.applied = Some(record.allocated.clone());
                record.restart = false;
                record.started = container.startup_probe.is_none();
                record.ready = record.started && container.readiness_probe.is_none();
                let (target, process) = (running.target.clone(), running.process.clone());
                self.running.insert(name.to_owned(), Box::new(running));
                self.shared.events.normal(&pod, Some(name), "Created", &format!("Created container: {name}"));
                self.shared.events.normal(&pod, Some(name), "Started", &format!("Started container {name}"));
                self.after_start(container, target, process);
                let kinds: &[ProbeKind] = match container.startup_probe {
                    Some(_) => &[ProbeKind::Startup],
                    None => &[ProbeKind::Liveness, ProbeKind::Readiness],
                };
                self.start_probes(name, kinds);
                true
            }
        }
    }

    /// The files for a container that is about to be started; nothing where it has to wait for its image, or cannot have it.
    pub(super) async fn files_of(&mut self, container: &Container, index: usize) -> Option<Files> {
        let (pod, name) = (self.pod.clone(), container.name.as_str());
        if let Some(files) = self.pulled.remove(name) {
            return Some(files);
        }
        let choice = match &self.engine {
            Some(engine) => image_choice::choose_of(container, &**engine).await,
            None => image_choice::choose(container, &self.shared.config.images),
        };
        match choice {
            Choice::Use(files) => {
                let message = format!("Container image {:?} already present on machine", container.image);
                self.shared.events.normal(&pod, Some(name), "Pulled", &message);
                Some(files)
            }
            Choice::Refuse(reason, message) => {
                let event = if reason == "InvalidImageName" { "InspectFailed" } else { reason };
                self.shared.events.warning(&pod, Some(name), event, &message);
                self.shared.events.warning(&pod, Some(name), "Failed", &format!("Error: {reason}"));
                self.refuse(index, reason, message);
                None
            }
            Choice::Pull(reference) => {
                self.shared.events.normal(&pod, Some(name), "Pulling", &format!("Pulling image {:?}", container.image));
                self.records[index].pulling = true;
                self.pull(name, reference);
                None
            }
        }
    }

    /// What the pod's pull secrets hold. One that is not there is no credential; the registry says whether one is needed.
    pub(super) fn pull_secrets(&self) -> impl Future<Output = Vec<Data>> + use<> {
        let names: Vec<String> = self.pod.spec.image_pull_secrets.iter().map(|it| it.name.clone()).collect();
        let api = self.objects_api(ObjectKind::Secret);
        async move {
            let found = join_all(names.iter().map(|name| api.get_opt(name))).await;
            found.into_iter().filter_map(|found| Some(data_of(ObjectKind::Secret, &*found.ok()??))).collect()
        }
    }

    /// Pulls beside the worker, and tells it.
    pub(super) fn pull(&mut self, container: &str, reference: images::Reference) {
        let (shared, sender, container) = (self.shared.clone(), self.sender.clone(), container.to_owned());
        let (secrets, engine) = (self.pull_secrets(), self.engine.clone());
        self.tasks.spawn(async move {
            let began = std::time::Instant::now();
            let secrets = secrets.await;
            let Ok(_turn) = shared.pulls.acquire().await else { return };
            let pulling = std::time::Instant::now();
            let outcome = match engine {
                Some(engine) => image_choice::pull_by(&*engine, &reference, &secrets).await.map(Files::Engine),
                None => image_choice::pull(&shared, &reference, &secrets).await.map(Files::Image),
            };
            let (took, waited) = (pulling.elapsed(), began.elapsed());
            let _ = sender.send(Box::new(Message::Pulled { container, outcome, took, waited })).await;
        });
    }

    pub(super) fn note_pulled(
        &mut self,
        container: &str,
        outcome: Result<Files, String>,
        took: Duration,
        waited: Duration,
    ) {
        let Some(index) = self.records.iter().position(|record| record.name == container) else { return };
        let pod = self.pod.clone();
        let image = pod.spec.all_containers().find(|it| it.name == container);
        let image = image.map(|container| container.image.as_str()).unwrap_or_default();
        self.records[index].pulling = false;
        match outcome {
            Ok(files) => {
                self.records[index].pulls_failed = 0;
                let message = format!(
                    "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                    image_choice::milliseconds(took),
                    image_choice::milliseconds(waited),
                    files.bytes()
                );
                self.shared.events.normal(&pod, Some(container), "Pulled", &message);
                self.pulled.insert(container.to_owned(), files);
            }
            Err(why) => {
                self.records[index].pulls_failed += 1;
                let message = format!("Failed to pull image {image:?}: {why}");
                self.shared.events.warning(&pod, Some(container), "Failed", &message);
                self.shared.events.warning(&pod, Some(container), "Failed", "Error: ErrImagePull");
                self.refuse(index, "ErrImagePull", why);
            }
        }
    }

    pub(super) fn refuse(&mut self, index: usize, reason: &str, message: String) {
        let at = Timestamp::now();
        self.records[index].state = State::Refused { reason: reason.into(), message, at };
        let name = self.records[index].name.clone();
        self.note_log(&name, |logs| logs.waiting = reason.to_owned());
    }

    async fn launch(
        &mut self,
        container: &Arc<Container>,
        attempt: u32,
        files: Files,
        id: &str,
    ) -> Result<RunningContainer, Problem> {
        let Some(sandbox) = self.sandbox.clone() else { return Err(Problem::Start("the pod has no sandbox".into())) };
        let io = |error: std::io::Error| Problem::Start(error.to_string());
        let namespace = self.pod.metadata.namespace.clone();
        let attached = self.shared.take_attachment(&namespace, &self.pod.metadata.name);
        let (attachment, tell) = attached.map_or((None, None), |(attachment, tell)| (Some(attachment), Some(tell)));
        let mut mounts = attachment.as_ref().map(|attachment| attachment.mounts.clone()).unwrap_or_default();
        let base = attachment.as_ref().map(|attachment| attachment.env.clone()).unwrap_or_default();
        let mut process = match self.process_spec(container, base, &files).await {
            Ok(process) => process,
            Err(message) => {
                if let Some(tell) = tell {
                    let _ = tell.send(Err(message.clone()));
                }
                return Err(Problem::Config(message));
            }
        };
        let wanted = Wanted { stdin: container.stdin, stdin_once: container.stdin_once, tty: container.tty };
        match &attachment {
            Some(attachment) if attachment.terminal => process.terminal = Terminal::Agents,
            None if wanted.tty => {
                process.terminal = Terminal::Own;
                remote::set_term(&mut process.env);
            }
            _ => {}
        }
        let message = self.dir.join(format!("{}.message", container.name));
        fs::File::options().write(true).create(true).truncate(true).mode(0o666).open(&message).map_err(io)?;
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).map_err(io)?;
        mounts.extend(self.mounts(container, &message, &process.env).map_err(Problem::Config)?);
        let mut hidden = self.shared.config.hidden.clone();
        hidden.push(self.shared.config.state_dir.clone());
        let local = attachment.is_some();
        let root = self.root(container, attempt, &files).map_err(io)?;
        let proc_unmasked = match self.engine {
            Some(_) => Ok(container.security_context.proc_mount == "Unmasked"),
            None => isolation::proc_unmasked(container, rustix::process::geteuid().is_root()),
        };
        let described = Arc::new(process.clone());
        let spec = ContainerSpec {
            process,
            root,
            mounts,
            hidden,
            process_namespace: match self.pod.spec.share_process_namespace || local {
                true => ProcessNamespace::Pod,
                false => ProcessNamespace::Own,
            },
            proc_unmasked: proc_unmasked.map_err(Problem::Config)?,
            groups: Vec::new(),
        };
        let beside = match container.target_container_name.as_str() {
            "" => None,
            target => {
                let target = self
                    .running
                    .get(target)
                    .ok_or_else(|| Problem::Config(format!("unable to find target container {target}")))?;
                Some(target.process.clone())
            }
        };
        let path = self.log_of(&container.name, attempt);
        let (stdio, capture) = match (attachment, &self.engine) {
            (Some(attachment), _) => (attachment.stdio, None),
            (None, Some(_)) => {
                let (stdio, ends) = console::elsewhere().map_err(io)?;
                (stdio, Some((Log::of_engine(path.clone()).map_err(io)?, ends)))
            }
            (None, None) => {
                let log = Log::create(path.clone()).map_err(io)?;
                let (stdio, ends) = console::prepare(wanted).map_err(io)?;
                (stdio, Some((log, ends)))
            }
        };
        let granted = self.records.iter().find(|record| record.name == container.name).map(|it| &it.allocated);
        let limits = resources::of_container(granted.unwrap_or(&container.resources));
        let keep = self.shared.config.keep;
        let kept = match &capture {
            Some((_, ends)) if keep => ends.kept(wanted).map_err(io)?,
            _ => Vec::new(),
        };
        if capture.is_some() {
            // Before it is started: what runs is written down.
            let record = self.records.iter().find(|it| it.name == container.name);
            let image_id = record.map(|it| it.image_id.clone()).unwrap_or_default();
            let last = record.and_then(|it| it.last_end().cloned());
            let (spec, since_ms) = (described.clone(), Timestamp::now().as_millisecond());
            let entry = KeptContainer { attempt, id: id.to_owned(), image_id, since_ms, spec, wanted, last };
            self.keep_container(&container.name, entry).map_err(io)?;
        }
        let plan = ContainerPlan {
            name: group_name(&container.name, attempt),
            spec,
            limits,
            beside,
            kept,
            pod: self.pod.clone(),
            container: container.clone(),
            attempt,
            files: files.clone(),
            log: path,
        };
        let started = sandbox.start(plan, stdio).await;
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                let text = match &error {
                    SandboxError::Refused(failure) => failure.to_string(),
                    other => other.to_string(),
                };
                if let Some(tell) = tell {
                    let _ = tell.send(Err(text.clone()));
                }
                return Err(Problem::Start(text));
            }
        };
        if let Some(engine) = started.engine() {
            // Now it has a name, which is what the status tells.
            self.rename_kept(&container.name, engine.name()).map_err(io)?;
        }
        let capture = capture.map(|(log, ends)| ends.open(wanted).map(|(console, outputs)| (log, console, outputs)));
        let capture = capture.transpose().map_err(io)?;
        if let (true, Some(terminal)) = (keep, capture.as_ref().and_then(|(_, console, _)| console.terminal())) {
            started.keep(terminal.another().map_err(io)?).await;
        }
        let log = capture.as_ref().map(|(log, ..)| log.clone());
        if let (Some(engine), Some(log)) = (started.engine(), &log) {
            engine.keep_log(log.clone());
        }
        let console = capture.as_ref().map(|(_, console, _)| console.clone());
        let current = log.clone();
        self.note_log(&container.name, |logs| {
            logs.previous = logs.current.take().or(logs.previous.take());
            logs.current = current;
        });
        self.watch_exit(container.name.clone(), attempt, started.clone(), capture, tell, None);
        let target = Arc::new(Target {
            pod: sandbox,
            process: started.clone(),
            container: container.clone(),
            spec: described,
            pod_ip: self.facts.pod_ip.parse().ok(),
            host_network: self.pod.spec.host_network,
        });
        let running = Running { target: target.clone(), console, since: Timestamp::now() };
        self.note_reachable(|pod| drop(pod.containers.insert(container.name.clone(), running)));
        Ok(RunningContainer {
            attempt,
            process: started,
            target,
            log,
            message,
            probes: Vec::new(),
            stopping: false,
            _files: files,
        })
    }

    /// Waits beside the worker for a container's end and the last of its output.
    pub(super) fn watch_exit(
        &mut self,
        container: String,
        attempt: u32,
        process: Arc<dyn RunningProcess>,
        capture: Option<(Arc<Log>, Arc<Console>, Outputs)>,
        tell: Option<tokio::sync::oneshot::Sender<Result<Exit, String>>>,
        at: Option<Timestamp>,
    ) {
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let exit = match capture {
                None => process.wait().await,
                Some((log, console, outputs)) => {
                    let mut output = std::pin::pin!(outputs.capture(&log, &console));
                    let exit = tokio::select! {
                        exit = process.wait() => {
                            let _ = tokio::time::timeout(DRAIN_MAX, output).await;
                            exit
                        }
                        () = &mut output => process.wait().await,
                    };
                    log.close();
                    console.end();
                    exit
                }
            };
            if let Some(tell) = tell {
                let _ = tell.send(Ok(exit));
            }
            let _ = sender.send(Box::new(Message::Exited { container, attempt, exit, at })).await;
        });
    }
}

fn new_id() -> String {
    format!("kemudi://{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
