//! Changes of what a running pod may use: what of them is granted, and how its groups are held to it. Decides by `resources`.

use super::{Worker, sleep_until};
use crate::decide::{Resize, State};
use crate::resources;
use crate::runtime::Limits;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// The pause before limits are set again that the kernel has refused: memory that is in use may be given back.
const RESIZE_AGAIN: SignedDuration = SignedDuration::from_secs(5);

impl Worker {
    /// Grants and gives what the pod asks for now, as far as it can be had.
    pub(super) async fn resize(&mut self) {
        let pod = self.pod.clone();
        let asked: BTreeMap<&str, _> =
            pod.spec.all_containers().map(|container| (container.name.as_str(), &container.resources)).collect();
        let differs = |record: &crate::decide::Record| {
            asked.get(record.name.as_str()).is_some_and(|asked| !resources::same(asked, &record.allocated))
        };
        if self.records.iter().any(differs) {
            let infeasible = match self.shared.runtime.unlimited() {
                Some(why) => Some(format!("In-place resize is infeasible on this node: {why}")),
                None => resources::infeasible(&pod, &self.shared.facts.allocatable),
            };
            let refusal = match infeasible {
                Some(message) => Some(("Infeasible", message)),
                None => self.ask_for_room().err().map(|message| ("Deferred", message)),
            };
            if let Some((reason, message)) = refusal {
                let pending = Resize::Pending { reason, message };
                if let (true, Resize::Pending { message, .. }) =
                    (self.facts.resize.as_ref() != Some(&pending), &pending)
                {
                    let text = format!("Pod resize {reason}: {}", resources::summary(&pod, Some(message)));
                    self.shared.events.warning(&pod, None, &format!("Resize{reason}"), &text);
                }
                self.facts.resize = Some(pending);
                return;
            }
            let text = format!("Pod resize started: {}", resources::summary(&pod, None));
            self.shared.events.normal(&pod, None, "ResizeStarted", &text);
            self.facts.resize = Some(Resize::InProgress { error: None });
            for record in &mut self.records {
                if let Some(asked) = asked.get(record.name.as_str()) {
                    record.allocated = (*asked).clone();
                }
            }
        }
        match &self.facts.resize {
            None => return,
            // What was refused is not asked for any more.
            Some(Resize::Pending { .. }) => (self.facts.resize, self.room) = (None, None),
            Some(Resize::InProgress { .. }) => {}
        }
        if self.facts.resize.is_some() {
            self.give().await;
        }
    }

    /// Notes what the pod has been promised from its beginning: what it was put on this node with is not weighed again.
    pub(super) fn note_promise(&self) {
        let _ = self.shared.promises.give(&self.pod.metadata.uid, self.promise(), |_| None);
    }

    /// What it has been promised.
    fn promise(&self) -> resources::Promise {
        let granted = self.records.iter().map(|it| (it.name.clone(), it.allocated.clone())).collect();
        resources::promise(&self.pod, &granted)
    }

    /// Has the pod be promised what it asks for now. Where others have too much for that, it is asked again when they give back.
    fn ask_for_room(&mut self) -> Result<(), String> {
        // Before it is asked, so that nothing is missed that is given back meanwhile.
        self.room = Some(self.shared.promises.room());
        let (asked, has) = (resources::promise(&self.pod, &BTreeMap::new()), self.promise());
        let allocatable = &self.shared.facts.allocatable;
        let objects = |others| resources::deferred(asked, has, others, allocatable);
        let given = self.shared.promises.give(&self.pod.metadata.uid, asked, objects);
        if given.is_ok() {
            self.room = None;
        }
        given
    }

    /// Holds the pod and its containers to what is granted.
    async fn give(&mut self) {
        let pod = self.pod.clone();
        let Some(sandbox) = self.sandbox.clone() else { return };
        let granted = self.records.iter().map(|it| (it.name.clone(), it.allocated.clone())).collect();
        let limits = resources::of_pod(&pod, &granted);
        let held = self.records.iter().map(|it| (it.name.clone(), it.applied.clone().unwrap_or(it.allocated.clone())));
        let before = resources::of_pod(&pod, &held.collect());
        // While some containers are held to more and some to less, the pod is to the larger.
        let mut outcome = sandbox.set_limits(&larger(&before, &limits)).await;
        let mut restarts = Vec::new();
        for container in pod.spec.all_containers() {
            let Some(record) = self.records.iter_mut().find(|record| record.name == container.name) else { continue };
            let (Some(applied), State::Running { .. }) = (&record.applied, &record.state) else { continue };
            if resources::same(applied, &record.allocated) {
                continue;
            }
            if resources::restarts_for(container, applied, &record.allocated) {
                record.restart = true;
                restarts.push(container.name.clone());
                continue;
            }
            let Some(running) = self.running.get(&container.name) else { continue };
            match running.process.set_limits(&resources::of_container(&record.allocated)).await {
                Ok(()) => record.applied = Some(record.allocated.clone()),
                Err(error) => outcome = Err(error),
            }
        }
        for name in &restarts {
            if !self.running[name].stopping {
                let message = format!("Container {name} resize requires restart");
                self.shared.events.normal(&pod, Some(name), "Killing", &message);
            }
            self.stop(name, self.grace());
        }
        if outcome.is_ok() {
            outcome = sandbox.set_limits(&limits).await;
        }
        match outcome {
            Ok(()) if restarts.is_empty() => {
                let text = format!("Pod resize completed: {}", resources::summary(&pod, None));
                self.shared.events.normal(&pod, None, "ResizeCompleted", &text);
                self.facts.resize = None;
            }
            Ok(()) => self.facts.resize = Some(Resize::InProgress { error: None }),
            Err(error) => {
                let failed = Resize::InProgress { error: Some(error.to_string()) };
                if self.facts.resize.as_ref() != Some(&failed) {
                    let text = format!("Pod resize error: {}", resources::summary(&pod, Some(&error.to_string())));
                    self.shared.events.warning(&pod, None, "ResizeError", &text);
                }
                self.facts.resize = Some(failed);
                let sender = self.sender.clone();
                self.tasks.spawn(async move {
                    sleep_until(Timestamp::now() + RESIZE_AGAIN).await;
                    let _ = sender.send(Box::new(super::Message::Again)).await;
                });
            }
        }
    }
}

/// What holds nobody to less than either.
fn larger(a: &Limits, b: &Limits) -> Limits {
    let most = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.max(b));
    Limits {
        memory_bytes: most(a.memory_bytes, b.memory_bytes),
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota_micros: most(a.cpu_quota_micros, b.cpu_quota_micros),
        pids: most(a.pids, b.pids),
    }
}
