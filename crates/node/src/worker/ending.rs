//! How containers and pods end: hooks, signals, time, and what is taken away afterwards.

use super::{EVICTED, TRY_AGAIN, Worker, seconds, sleep_until};
use crate::agent::lock;
use crate::pod::{Container, Handler};
use crate::probe::{self, Target};
use crate::runtime::RunningProcess;
use crate::sandbox::Exit;
use jiff::Timestamp;
use kemudi_client::DeleteOptions;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// How long a pod without an own wish may take to end.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// How long a pod may take whose object is already gone.
const GRACE_GONE: Duration = Duration::from_secs(1);
/// What is left to a container after a hook has used up its time.
const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);
/// How long the containers of an evicted pod may take to end.
const GRACE_EVICTED: Duration = Duration::from_secs(1);
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl Worker {
    /// The hook after the start runs beside; if it fails the container is ended.
    pub(super) fn after_start(&mut self, container: &Container, target: Arc<Target>, process: Arc<dyn RunningProcess>) {
        let Some(hook) = container.lifecycle.post_start.clone() else { return };
        let (events, pod, grace) = (self.shared.events.clone(), self.pod.clone(), self.grace());
        let name = container.name.clone();
        self.tasks.spawn(async move {
            if let Err(error) = run_hook(&target, &hook, Duration::MAX).await {
                events.warning(&pod, Some(&name), "FailedPostStartHook", &format!("PostStartHook failed: {error}"));
                end(process, None, grace).await;
            }
        });
    }

    pub(super) fn grace(&self) -> Duration {
        if self.facts.ended.as_ref().is_some_and(|(reason, _)| reason == EVICTED) {
            return GRACE_EVICTED;
        }
        let meta =
            self.pod.metadata.deletion_grace_period_seconds.filter(|_| self.pod.metadata.deletion_timestamp.is_some());
        if self.gone && meta.is_none() {
            return GRACE_GONE;
        }
        meta.or(self.pod.spec.termination_grace_period_seconds).map_or(GRACE_DEFAULT, seconds)
    }

    /// Asks a container to end, and makes it end when the time is over.
    pub(super) fn stop(&mut self, name: &str, grace: Duration) {
        let Some(running) = self.running.get_mut(name).filter(|running| !running.stopping) else { return };
        running.stopping = true;
        running.probes.drain(..).for_each(|probe| probe.abort());
        let hook = running.target.container.lifecycle.pre_stop.clone().map(|hook| (running.target.clone(), *hook));
        self.tasks.spawn(end(running.process.clone(), hook, grace));
    }

    pub(super) fn stop_all(&mut self, grace: Duration) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            if !self.running[&name].stopping {
                let message = format!("Stopping container {name}");
                self.shared.events.normal(&self.pod, Some(&name), "Killing", &message);
            }
            self.stop(&name, grace);
        }
    }

    /// Ends all containers: those beside the others last.
    pub(super) async fn terminate(&mut self) {
        self.facts.terminating = true;
        let mut deadline = tokio::time::Instant::now() + self.grace();
        let sidecars: Vec<String> =
            self.pod.spec.init_containers.iter().filter(|c| c.is_sidecar()).map(|c| c.name.clone()).collect();
        while !self.running.is_empty() {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let main: Vec<String> = self.running.keys().filter(|name| !sidecars.contains(*name)).cloned().collect();
            if main.is_empty() {
                self.stop_all(left);
            } else {
                main.iter().filter(|name| !self.running[*name].stopping).for_each(|name| {
                    let message = format!("Stopping container {name}");
                    self.shared.events.normal(&self.pod, Some(name), "Killing", &message);
                });
                main.iter().for_each(|name| self.stop(name, left));
            }
            tokio::select! {
                Some(message) = self.messages.recv() => self.take_message(*message),
                changed = self.updates.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_update();
                    deadline = deadline.min(tokio::time::Instant::now() + self.grace());
                }
                () = tokio::time::sleep_until(deadline + GRACE_AFTER_HOOK) => {
                    for running in self.running.values() {
                        running.process.signal(SIGKILL).await;
                    }
                    // The kernel has their ends; the rest is only to hear of them.
                    deadline += GRACE_AFTER_HOOK;
                }
            }
        }
    }

    /// Ends the sandbox and takes its files away, but for the logs.
    pub(super) async fn tear_down(&mut self) {
        if self.sandbox.is_some()
            && let Some(pod) = lock(&self.shared.reachable).remove(&self.key())
        {
            pod.ended.cancel();
        }
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.kill();
            sandbox.ended().await;
        }
        self.forget();
        self.tasks.shutdown().await;
        self.running.clear();
        if let Some(address) = self.address.take() {
            self.shared.give_address_back(address);
        }
        let _ = fs::remove_dir_all(self.dir.join("volumes"));
    }

    pub(super) async fn delete(&mut self) {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: api::Preconditions { uid: Some(self.pod.metadata.uid.clone()), resource_version: None },
            ..DeleteOptions::default()
        };
        while !self.gone {
            match self.api.delete_with(&self.pod.metadata.name, &options).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => tracing::debug!(%error, pod = self.pod.metadata.name, "a pod could not be deleted yet"),
            }
            tokio::select! {
                () = sleep_until(Timestamp::now() + TRY_AGAIN) => {}
                changed = self.updates.changed() => match changed {
                    Ok(()) => self.take_update(),
                    Err(_) => return,
                },
            }
        }
    }
}

/// Ends a container: its hook, SIGTERM, and when the time is over SIGKILL.
async fn end(process: Arc<dyn RunningProcess>, hook: Option<(Arc<Target>, Handler)>, grace: Duration) {
    let began = tokio::time::Instant::now();
    if let Some((target, hook)) = hook
        && let Err(error) = run_hook(&target, &hook, grace).await
    {
        tracing::debug!(%error, container = target.container.name, "the hook before the stop failed");
    }
    let used = began.elapsed();
    let left = if used < GRACE_AFTER_HOOK {
        grace.saturating_sub(used)
    } else {
        grace.saturating_sub(used).max(GRACE_AFTER_HOOK)
    };
    if !left.is_zero() {
        process.signal(SIGTERM).await;
        if tokio::time::timeout(left, process.wait()).await.is_ok() {
            return;
        }
    }
    process.signal(SIGKILL).await;
}

async fn run_hook(target: &Target, hook: &Handler, limit: Duration) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return match probe::command(target, &exec.command, limit).await? {
            (Exit::Code(0), _) => Ok(()),
            (exit, output) => Err(format!("command {:?} ended with {}: {output}", exec.command, exit.code())),
        };
    }
    if let Some(http) = &hook.http_get {
        let attempt = tokio::time::timeout(limit, probe::http_get(target, http)).await;
        return attempt.unwrap_or_else(|_| Err("no answer in time".into()));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds).min(limit)).await;
    }
    Ok(())
}
