//! A container's probes, as long as it runs, and what follows from them.

use super::{Message, Worker, seconds};
use crate::pod::{Pod, Probe};
use crate::probe::{self, Counter, ProbeKind, Target};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

impl Worker {
    pub(super) fn note_probe(&mut self, container: &str, attempt: u32, kind: ProbeKind, healthy: bool) {
        let Some(running) = self.running.get_mut(container).filter(|known| known.attempt == attempt) else { return };
        let Some(record) = self.records.iter_mut().find(|record| record.name == container) else { return };
        match (kind, healthy) {
            (ProbeKind::Readiness, healthy) => record.ready = healthy && record.started,
            (ProbeKind::Startup, true) => {
                record.started = true;
                record.ready = running.target.container.readiness_probe.is_none();
                self.start_probes(container, &[ProbeKind::Liveness, ProbeKind::Readiness]);
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let grace = match kind {
                    ProbeKind::Startup => &running.target.container.startup_probe,
                    _ => &running.target.container.liveness_probe,
                };
                let own = grace.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
                let grace = own.map_or_else(|| self.grace(), seconds);
                let word = kind.word().to_lowercase();
                let message = format!("Container {container} failed {word} probe, will be restarted");
                self.shared.events.normal(&self.pod, Some(container), "Killing", &message);
                self.stop(container, grace);
            }
        }
    }

    pub(super) fn start_probes(&mut self, name: &str, kinds: &[ProbeKind]) {
        let Some(running) = self.running.get_mut(name) else { return };
        for kind in kinds {
            let container = &running.target.container;
            let probe = match kind {
                ProbeKind::Startup => &container.startup_probe,
                ProbeKind::Liveness => &container.liveness_probe,
                ProbeKind::Readiness => &container.readiness_probe,
            };
            let Some(probe) = probe.clone() else { continue };
            let probing = Probing {
                container: name.to_owned(),
                attempt: running.attempt,
                kind: *kind,
                probe: *probe,
                target: running.target.clone(),
                sender: self.sender.clone(),
                events: self.shared.events.clone(),
                pod: self.pod.clone(),
            };
            running.probes.push(self.tasks.spawn(probing.run()));
        }
    }
}

/// A probe that runs as long as its container.
struct Probing {
    container: String,
    attempt: u32,
    kind: ProbeKind,
    probe: Probe,
    target: Arc<Target>,
    sender: mpsc::Sender<Box<Message>>,
    events: crate::events::Recorder,
    pod: Arc<Pod>,
}

impl Probing {
    async fn run(self) {
        let period = Duration::from_secs(self.probe.period_seconds.max(1));
        tokio::time::sleep(Duration::from_secs(self.probe.initial_delay_seconds)).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut counter = Counter::default();
        loop {
            ticks.tick().await;
            let result = probe::run(&self.target, &self.probe).await;
            if let Err(error) = &result {
                let message = format!("{} probe failed: {error}", self.kind.word());
                self.events.warning(&self.pod, Some(&self.container), "Unhealthy", &message);
            }
            let Some(healthy) = counter.observe(result.is_ok(), &self.probe) else { continue };
            let (container, attempt, kind) = (self.container.clone(), self.attempt, self.kind);
            if self.sender.send(Box::new(Message::Probed { container, attempt, kind, healthy })).await.is_err() {
                return;
            }
            if kind == ProbeKind::Startup && healthy {
                return;
            }
        }
    }
}
