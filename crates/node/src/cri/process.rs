//! One container of a runtime: its end, its commands and streams, its log.

use super::exits::Ended;
use super::{Inner, client, config, messages as m, mounts, refused, streaming};
use crate::agent::lock;
use crate::cgroups::Group;
use crate::logs::{LOG_LOOK_EVERY, Log};
use crate::runtime::{EngineProcess, Limits, RunningProcess, Usage};
use crate::sandbox::{Error, Exit, ProcessSpec, Stdio, sys};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streams::remote_command::{Options, Outcome, Streams};
use tokio::sync::watch;
use tokio::task::JoinSet;

const OUT_OF_MEMORY: &str = "OOMKilled";
const SIGKILL: i32 = 9;
/// How long a runtime may take to write down that a container has ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// What is passed on of what a probe's command prints, in bytes.
const OUTPUT_BYTES_MAX: usize = 10 << 10;
/// How long a container that was asked to end may take before the runtime kills it on its own: longer than the agent waits, which kills
/// it when the pod's time is over. In seconds.
const STOP_SECONDS: u32 = 24 * 3600;

/// A container that was started.
pub struct CriProcess {
    runtime: Arc<Inner>,
    id: String,
    /// Of the pod, and what the container's attempt is called in it.
    folder: PathBuf,
    name: String,
    ended: watch::Receiver<Option<Ended>>,
    /// What its processes are counted in.
    group: Option<Group>,
    /// Requests to end it, which last until it has, and what keeps its log small; they end with this.
    tasks: Mutex<JoinSet<()>>,
}

impl CriProcess {
    /// Follows a container that was started, now or by an agent before this one.
    pub async fn follow(
        runtime: Arc<Inner>,
        id: &str,
        folder: &Path,
        name: &str,
    ) -> Result<Arc<CriProcess>, client::Error> {
        let ended = runtime.exits.follow(id);
        // It may have ended before anybody listened.
        runtime.exits.look(id).await?;
        let over = ended.borrow().is_some();
        let pid = match over {
            true => None,
            false => runtime.client.container_pid(id).await?.filter(|pid| is_of(*pid, id)),
        };
        let group = pid.and_then(Group::of_process);
        let (id, folder, name) = (id.to_owned(), folder.to_owned(), name.to_owned());
        let process = CriProcess { runtime, id, folder, name, ended, group, tasks: Mutex::default() };
        match pid {
            Some(pid) => process.watch(pid),
            None if over => {}
            None => process.look_again(),
        }
        Ok(Arc::new(process))
    }

    /// Looks once more: what ended a moment ago may not be written down by the runtime yet.
    fn look_again(&self) {
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        self.spawn(async move {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let _ = runtime.exits.look(&id).await;
        });
    }

    /// Has the kernel tell the end of the container's process: what ended while nobody listened to the runtime is seen, too.
    fn watch(&self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let opened = pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
        let process = opened.and_then(Result::ok).and_then(|opened| sys::watch(opened).ok());
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        self.spawn(async move {
            // One that is gone already cannot be watched any more.
            if let Some(process) = process {
                let _ = process.readable().await;
            }
            runtime.exits.settle(id, true).await;
        });
    }

    /// When it ended, if it has.
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended.borrow().as_ref().map(|ended| ended.at)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Whether a process is a container's, as the group that it is in says: its number may be another's where the runtime lives in
/// namespaces of its own.
fn is_of(pid: u32, id: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id))
}

impl RunningProcess for CriProcess {
    fn signal(&self, signal: i32) -> BoxFuture<'_, ()> {
        // The interface has no signals but these two: to end, which is what the image says, and to be ended.
        let seconds = if signal == SIGKILL { 0 } else { STOP_SECONDS };
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        self.spawn(async move {
            // A container that is gone needs no signal.
            if let Err(error) = runtime.client.stop_container(&id, seconds).await {
                tracing::debug!(%error, id, "a container could not be stopped");
            }
        });
        async {}.boxed()
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        let mut ended = self.ended.clone();
        async move {
            let ended = ended.wait_for(Option::is_some).await;
            ended.ok().and_then(|ended| ended.as_ref().map(|ended| ended.exit)).unwrap_or(Exit::Signal(SIGKILL))
        }
        .boxed()
    }

    fn exec(&self, _: ProcessSpec, _: Stdio) -> BoxFuture<'_, Result<Arc<dyn RunningProcess>, Error>> {
        async { Err(refused("the streams of a container runtime's commands are its own")) }.boxed()
    }

    fn keep(&self, _: OwnedFd) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn id(&self) -> u32 {
        0
    }

    fn out_of_memory(&self) -> bool {
        self.ended.borrow().as_ref().is_some_and(|ended| ended.reason == OUT_OF_MEMORY)
    }

    fn set_limits(&self, limits: &Limits) -> BoxFuture<'_, io::Result<()>> {
        let resources = config::resources(limits, None);
        async move {
            let set = self.runtime.client.update_container_resources(&self.id, resources).await;
            set.map_err(|error| io::Error::other(error.to_string()))
        }
        .boxed()
    }

    fn usage(&self) -> Option<Usage> {
        self.group.as_ref().map(Group::usage)
    }

    fn clear(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Err(error) = self.runtime.client.remove_container(&self.id).await {
                tracing::debug!(%error, id = self.id, "a container stays until its pod goes");
            }
            mounts::clear_of(&self.folder, &self.name);
        }
        .boxed()
    }

    fn engine(&self) -> Option<&dyn EngineProcess> {
        Some(self)
    }
}

impl EngineProcess for CriProcess {
    fn name(&self) -> String {
        format!("{}://{}", self.runtime.name, self.id)
    }

    fn keep_log(&self, log: Arc<Log>) {
        let (runtime, id, mut ended) = (self.runtime.clone(), self.id.clone(), self.ended.clone());
        self.spawn(async move {
            loop {
                tokio::select! {
                    _ = ended.wait_for(Option::is_some) => return,
                    () = tokio::time::sleep(LOG_LOOK_EVERY) => {}
                }
                match log.put_aside() {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(error) => {
                        tracing::warn!(%error, id, "a container's log cannot be kept small");
                        continue;
                    }
                }
                if let Err(error) = runtime.client.reopen_container_log(&id).await {
                    tracing::warn!(%error, id, "a container's log goes on in the file that was put aside");
                }
                let _ = log.turned();
            }
        });
    }

    fn run(&self, argv: &[String], limit: Duration) -> BoxFuture<'_, Result<(Exit, String), String>> {
        let argv = argv.to_vec();
        async move {
            let seconds = (limit != Duration::MAX).then_some(limit);
            let answer = self.runtime.client.exec_sync(&self.id, &argv, seconds).await;
            match answer {
                Ok(answer) => {
                    let mut output = answer.stdout;
                    output.extend_from_slice(&answer.stderr);
                    output.truncate(OUTPUT_BYTES_MAX);
                    Ok((Exit::Code(answer.exit_code), String::from_utf8_lossy(&output).into_owned()))
                }
                Err(error) if error.code == client::DEADLINE_EXCEEDED => {
                    Err(format!("command timed out: {:?} timed out after {}s", argv.join(" "), limit.as_secs()))
                }
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }

    fn exec(&self, argv: Vec<String>, options: Options, streams: Streams) -> BoxFuture<'_, Outcome> {
        async move {
            let Options { stdin, stdout, stderr, tty } = options;
            let container_id = self.id.clone();
            let request =
                m::ExecRequest { container_id, cmd: argv.clone(), tty, stdin, stdout, stderr: stderr && !tty };
            let session = async {
                let url = self.runtime.client.exec(&request).await.map_err(|error| error.to_string())?;
                streaming::session(&url, options, streams).await
            };
            match session.await {
                Ok(Outcome::Code(code, _)) => {
                    Outcome::Code(code, format!("error executing command [{}], exit code {code}", argv.join(" ")))
                }
                Ok(outcome) => outcome,
                Err(why) => Outcome::Failed(format!("error executing command in container: {why}")),
            }
        }
        .boxed()
    }

    fn attach(&self, options: Options, streams: Streams) -> BoxFuture<'_, Outcome> {
        async move {
            let Options { stdin, stdout, stderr, tty } = options;
            let container_id = self.id.clone();
            let request = m::AttachRequest { container_id, tty, stdin, stdout, stderr: stderr && !tty };
            let session = async {
                let url = self.runtime.client.attach(&request).await.map_err(|error| error.to_string())?;
                streaming::session(&url, options, streams).await
            };
            session.await.unwrap_or_else(|why| Outcome::Failed(format!("error attaching to container: {why}")))
        }
        .boxed()
    }
}
