//! Pods of the sandbox that are made before anybody asks for them, so that one that is asked for has its namespaces already. Keeps a
//! few, and makes others only while no pod is being started: what they save is not to be taken from who waits.

use crate::agent::lock;
use crate::sandbox::{Error, Network, Pod, PodSpec, Sandbox, Spare};
use std::sync::{Arc, Mutex};
use tokio_util::task::AbortOnDropHandle;

/// How many are kept. Each is a process and a network of the kernel's.
const SPARES_MAX: usize = 2;
/// From which pod on: an agent that runs a single one, as for a command, has no use for them.
const MADE_FROM: u64 = 2;

/// The sandbox, and the pods that it has ahead.
pub struct Spares {
    sandbox: Arc<Sandbox>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Vec<Spare>,
    /// Pods that are being made, and containers that are being started.
    under_way: usize,
    /// All that were ever asked for.
    asked: u64,
    /// What the last one was like that has a network of its own: the next will be like it.
    like: Option<PodSpec>,
    making: Option<AbortOnDropHandle<()>>,
    /// None are wanted any more.
    closed: bool,
}

/// Something that somebody waits for, until this is dropped.
pub struct UnderWay {
    spares: Arc<Spares>,
    /// Whether it is over then: a pod that is made is still to be started.
    is_last: bool,
}

impl Spares {
    pub fn new(sandbox: Arc<Sandbox>) -> Arc<Spares> {
        Arc::new(Spares { sandbox, state: Mutex::default() })
    }

    /// Notes that a container is being started.
    pub fn starting(self: &Arc<Spares>) -> UnderWay {
        lock(&self.state).under_way += 1;
        UnderWay { spares: self.clone(), is_last: true }
    }

    /// Makes a pod, of one that is there already where that serves.
    ///
    /// # Errors
    /// As [`Sandbox::create_pod`].
    pub async fn create_pod(self: &Arc<Spares>, spec: PodSpec) -> Result<Pod, Error> {
        let _under_way = {
            let mut state = lock(&self.state);
            state.under_way += 1;
            state.asked += 1;
            UnderWay { spares: self.clone(), is_last: false }
        };
        match self.take(&spec) {
            Some(spare) => self.sandbox.use_spare(spare, spec).await,
            None => self.sandbox.create_pod(spec).await,
        }
    }

    fn take(&self, spec: &PodSpec) -> Option<Spare> {
        let mut state = lock(&self.state);
        if let Network::Own { .. } = &spec.network {
            state.like = Some(spec.clone());
        }
        state.ready.retain(Spare::is_good);
        let at = state.ready.iter().position(|spare| spare.serves(spec));
        at.map(|at| state.ready.swap_remove(at))
    }

    /// Ends those that are there, and makes no more.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.making = None;
        state.ready.clear();
    }

    /// What is to be made next, if now is the time. Who is told nothing stops making.
    fn next(&self) -> Option<PodSpec> {
        let mut state = lock(&self.state);
        let wanted = !state.closed && state.under_way == 0 && state.ready.len() < SPARES_MAX;
        let next = state.like.clone().filter(|_| wanted);
        if next.is_none() {
            state.making = None;
        }
        next
    }

    async fn make(self: Arc<Spares>) {
        while let Some(like) = self.next() {
            match self.sandbox.make_spare(&like).await {
                Ok(Some(spare)) => lock(&self.state).ready.push(spare),
                Ok(None) => lock(&self.state).like = None,
                Err(error) => {
                    tracing::debug!(%error, "no pod can be made ahead");
                    lock(&self.state).like = None;
                }
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = lock(&self.spares.state);
        state.under_way -= 1;
        let wanted = self.is_last && !state.closed && state.under_way == 0 && state.asked >= MADE_FROM;
        // Outside of the runtime the agent has ended.
        if let (true, None, Ok(runtime)) = (wanted, &state.making, tokio::runtime::Handle::try_current()) {
            state.making = Some(AbortOnDropHandle::new(runtime.spawn(self.spares.clone().make())));
        }
    }
}
