//! The loop that all controllers share: events into mirrors, changed keys to `decide`, its actions to `act`.
//! One key is worked on by one task at a time; what failed is tried again after a growing pause.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use kemudi_client::{ApiResource, Client, Dynamic, Error, ListOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::act::{self, Action};
use crate::feed::News;
use crate::lean::Lean;
use crate::mirror::{Key, Mirror};

/// Keys that one controller works on at a time, unless it says otherwise.
const TASKS_MAX: usize = 64;
/// Pauses before a key is tried again.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A promise: what it watches, and what is to be done about what it saw.
pub trait Controller: Send + 'static {
    fn name(&self) -> &'static str;

    /// Keys that it works on at a time.
    fn tasks_max(&self) -> usize {
        TASKS_MAX
    }

    /// What it watches; the mirrors come in this order.
    fn sources(&self) -> Vec<Source>;

    /// What is beside the objects that it watches: where it changes, the keys of all objects of the first
    /// source are looked at again.
    fn stirred_by(&self) -> Option<watch::Receiver<String>> {
        None
    }

    /// Which keys may need work after an object of a source changed (or went).
    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key>;

    /// What is to be done about a key, as far as is seen. Pure; nothing where the promise is kept.
    fn decide(&self, _: &Key, _: &[Mirror]) -> Vec<Action> {
        Vec::new()
    }

    /// The same, for those that go by the time.
    fn decide_at(&self, key: &Key, seen: &[Mirror], _now: Timestamp) -> Vec<Action> {
        self.decide(key, seen)
    }
}

/// A resource and which of its objects.
pub struct Source {
    pub resource: ApiResource,
    pub options: ListOptions,
    /// What the controller reads of each object, where that is not all.
    pub lean: Option<Lean>,
}

impl Source {
    pub fn all(resource: ApiResource) -> Source {
        Source { resource, options: ListOptions::default(), lean: None }
    }

    /// `fields` is a field selector of our own, which always parses.
    pub fn fields(resource: ApiResource, fields: &str) -> Source {
        let fields = kemudi_client::FieldSelector::parse(fields).unwrap_or_default();
        Source { options: ListOptions { fields, ..ListOptions::default() }, ..Source::all(resource) }
    }

    /// `labels` is a label selector of our own, which always parses.
    pub fn labels(resource: ApiResource, labels: &str) -> Source {
        let labels = kemudi_client::LabelSelector::parse(labels).unwrap_or_default();
        Source { options: ListOptions { labels, ..ListOptions::default() }, ..Source::all(resource) }
    }

    pub fn lean(self, lean: Lean) -> Source {
        Source { lean: Some(lean), ..self }
    }
}

/// Runs a controller until it is told to stop. `events` are those of its sources.
pub async fn run(
    client: Client,
    controller: Box<dyn Controller>,
    events: mpsc::Receiver<News>,
    stop: CancellationToken,
) {
    let mut stirred = controller.stirred_by();
    let mut state = State::new(client, controller, events);
    loop {
        let retry = at(state.next_retry());
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(news) = state.events.recv() => state.observe(news),
            Some(done) = state.tasks.join_next_with_id(), if !state.tasks.is_empty() => state.finish(done),
            () = retry => state.wake(),
            () = changed(&mut stirred) => state.stir(),
        }
        state.start_tasks();
    }
    state.tasks.shutdown().await;
}

struct State {
    client: Client,
    controller: Box<dyn Controller>,
    events: mpsc::Receiver<News>,
    seen: Vec<Mirror>,
    /// Keys that wait for a task.
    ready: BTreeSet<Key>,
    /// Keys that have one.
    busy: BTreeSet<Key>,
    running: HashMap<Id, Key>,
    tasks: JoinSet<Result<(), Error>>,
    /// When keys that failed are tried again, and the pause after that.
    retries: BTreeMap<Key, Retry>,
    /// When keys are to be looked at though nothing happens.
    later: BTreeMap<Key, Instant>,
    /// What was told last of a key, which is not told again. No more than there are keys with something to tell.
    told: HashMap<Key, String>,
}

struct Retry {
    /// `None` while the key is being tried.
    at: Option<Instant>,
    pause: Duration,
}

impl State {
    fn new(client: Client, controller: Box<dyn Controller>, events: mpsc::Receiver<News>) -> State {
        let seen = controller.sources().iter().map(|source| Mirror::new(source.lean)).collect();
        State {
            client,
            controller,
            events,
            seen,
            ready: BTreeSet::new(),
            busy: BTreeSet::new(),
            running: HashMap::new(),
            tasks: JoinSet::new(),
            retries: BTreeMap::new(),
            later: BTreeMap::new(),
            told: HashMap::new(),
        }
    }

    fn observe(&mut self, (source, event): News) {
        for object in self.seen[source].follow(event) {
            self.ready.extend(self.controller.keys(source, &object, &self.seen));
        }
    }

    fn stir(&mut self) {
        self.ready.extend(self.seen[0].keys().cloned());
    }

    /// Decides about ready keys, once all sources have told their first list: half a picture makes wrong decisions.
    fn start_tasks(&mut self) {
        if !self.seen.iter().all(Mirror::is_complete) {
            return;
        }
        self.seen.iter_mut().for_each(Mirror::pack);
        while self.tasks.len() < self.controller.tasks_max() {
            let free = |key: &&Key| !self.busy.contains(*key);
            let Some(key) = self.ready.iter().find(free).cloned() else { return };
            self.ready.remove(&key);
            let actions = self.controller.decide_at(&key, &self.seen, Timestamp::now());
            let actions = self.due(&key, actions);
            if actions.is_empty() {
                self.retries.remove(&key);
                continue;
            }
            let client = self.client.clone();
            let task = self.tasks.spawn(async move {
                for action in actions {
                    act::act(&client, action).await?;
                }
                Ok(())
            });
            self.busy.insert(key.clone());
            self.running.insert(task.id(), key);
        }
    }

    /// The actions of now: without what is for later, and what was told already.
    fn due(&mut self, key: &Key, actions: Vec<Action>) -> Vec<Action> {
        let tells = actions.iter().filter(|action| matches!(action, Action::Tell { .. }));
        let tells: String = tells.map(|action| format!("{action:?}\n")).collect();
        let is_new = self.told.get(key) != Some(&tells);
        match tells.is_empty() {
            true => drop(self.told.remove(key)),
            false => drop(self.told.insert(key.clone(), tells)),
        }
        self.later.remove(key);
        let mut due = Vec::new();
        for action in actions {
            match action {
                Action::Again { after } => drop(self.later.insert(key.clone(), Instant::now() + after)),
                Action::Tell { .. } if !is_new => {}
                action => due.push(action),
            }
        }
        due
    }

    fn finish(&mut self, done: Result<(Id, Result<(), Error>), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome.map_err(|error| (error.is_conflict(), error.to_string()))),
            Err(error) => (error.id(), Err((false, error.to_string()))),
        };
        let Some(key) = self.running.remove(&id) else { return };
        self.busy.remove(&key);
        let Err((is_conflict, error)) = outcome else {
            self.retries.remove(&key);
            return;
        };
        let pause = self.retries.get(&key).map_or(RETRY_MIN, |retry| (retry.pause * 2).min(RETRY_MAX));
        let (namespace, name) = &key;
        let controller = self.controller.name();
        match is_conflict {
            // Somebody else was quicker, which the watch tells as well.
            true => tracing::debug!(controller, namespace, name, error, ?pause, "to be tried again"),
            false => tracing::warn!(controller, namespace, name, error, ?pause, "to be tried again"),
        }
        self.retries.insert(key, Retry { at: Some(Instant::now() + pause), pause });
    }

    fn next_retry(&self) -> Option<Instant> {
        self.retries.values().filter_map(|retry| retry.at).chain(self.later.values().copied()).min()
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while let Some((key, _)) = self.later.iter().find(|(_, at)| **at <= now) {
            let key = key.clone();
            self.later.remove(&key);
            self.ready.insert(key);
        }
        for (key, retry) in &mut self.retries {
            if retry.at.is_some_and(|at| at <= now) {
                retry.at = None;
                self.ready.insert(key.clone());
            }
        }
    }
}

/// Until what stirs the controller has changed: never, where nothing does or nothing will any more.
async fn changed(stirred: &mut Option<watch::Receiver<String>>) {
    if let Some(stirred) = stirred
        && stirred.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
