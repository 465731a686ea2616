//! Priority and fairness: which FlowSchema a request falls under, and a seat at that schema's priority level before it goes on.
//! A flood of one user's requests waits in queues of its own. Configuration follows the objects, changed by an observer;
//! this module writes none of them ([`bootstrap`] does) and looks at no body.
//!
//! Finding the schema is a walk over a handful of them in memory, without a lock; taking a seat where there is one is a few
//! atomic operations. Only a request that has to wait takes a lock, that of its level.

pub mod bootstrap;
mod level;
mod schema;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Ask, ListOptions, Verb, meta};
use arc_swap::ArcSwap;
use http::HeaderValue;
use serde_json::Value;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use self::level::Pool;
pub use self::level::{Level, Refused, Seat};
use self::schema::Rules;
pub use self::schema::Schema;
use crate::authn::User;
use crate::objects::Snapshot;

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
pub const SCHEMAS: &str = "flowschemas";
pub const LEVELS: &str = "prioritylevelconfigurations";

/// `--max-requests-inflight` and `--max-mutating-requests-inflight` of the API server together: all seats there are.
pub const SEATS_TOTAL: u32 = 400 + 200;
/// The longest that a request waits for a seat; it gives up sooner where a quarter of its time is over.
pub const WAIT_MAX: Duration = Duration::from_secs(15);
/// When a refused client may try again, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// Most seats of one list. A level of few seats allows no more than [`LIST_SEATS_SHARE`] of them.
const LIST_SEATS_MAX: u32 = 100;
const LIST_SEATS_SHARE: f64 = 0.15;
/// A list costs one seat for each of these, of the bytes it holds at once: lists are streamed, so that is never more than
/// [`LIST_BYTES_AT_ONCE`].
const BYTES_PER_SEAT: usize = 100_000;
const LIST_BYTES_AT_ONCE: usize = 1_000_000;
/// Objects that are looked at for the size of an average one.
const SAMPLE_OBJECTS: usize = 8;

/// All levels and schemas, as the objects say.
pub struct Flow {
    config: ArcSwap<Config>,
    known: Mutex<Known>,
    pool: Arc<Pool>,
    /// Cancelled when the objects that every cluster begins with are there.
    pub made: CancellationToken,
}

/// What requests are held against. Replaced as a whole.
#[derive(Default)]
struct Config {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
    /// Where nothing else takes a request.
    catch_all: Option<Arc<Schema>>,
    levels: Vec<Arc<Level>>,
}

/// The objects as they are, read.
#[derive(Default)]
struct Known {
    schemas: BTreeMap<String, (HeaderValue, Arc<Rules>)>,
    levels: BTreeMap<String, (HeaderValue, level::Spec)>,
    /// By name: who holds a seat keeps it while configuration changes.
    live: HashMap<String, Arc<Level>>,
    statistics: HashMap<String, Arc<schema::Statistics>>,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow::with_seats(SEATS_TOTAL)
    }
}

impl Flow {
    /// With this many seats to share. Holds the mandatory levels and schemas from the beginning.
    pub fn with_seats(total: u32) -> Flow {
        let flow = Flow {
            config: ArcSwap::default(),
            known: Mutex::default(),
            pool: Arc::new(Pool::new(total)),
            made: CancellationToken::new(),
        };
        flow.rebuild(&mut lock(&flow.known));
        flow
    }

    /// The schema that a request falls under.
    pub fn classify(&self, user: &User, ask: &Ask) -> Option<Arc<Schema>> {
        let config = self.config.load();
        let found = config.schemas.iter().find(|schema| schema.rules.take(user, ask));
        found.or(config.catch_all.as_ref()).cloned()
    }

    /// Takes in a change of one of the objects.
    pub fn on_change(&self, resource: &str, old: Option<&Value>, new: Option<&Value>) {
        let Some(name) = new.or(old).map(meta::name) else { return };
        let uid = |object: &Value| HeaderValue::from_str(meta::uid(object)).unwrap_or(HeaderValue::from_static(""));
        let mut known = lock(&self.known);
        match (resource, new) {
            (SCHEMAS, Some(schema)) => {
                known.schemas.insert(name.to_string(), (uid(schema), Arc::new(Rules::of(schema))));
            }
            (SCHEMAS, None) => drop(known.schemas.remove(name)),
            (_, Some(level)) => drop(known.levels.insert(name.to_string(), (uid(level), level::Spec::of(level)))),
            (_, None) => drop(known.levels.remove(name)),
        }
        self.rebuild(&mut known);
    }

    /// The levels, in order of their names, for those who count.
    pub fn levels(&self) -> Vec<Arc<Level>> {
        self.config.load().levels.clone()
    }

    /// The schemas that are in use, in the order in which they are tried.
    pub fn schemas(&self) -> Vec<Arc<Schema>> {
        self.config.load().schemas.clone()
    }

    fn rebuild(&self, known: &mut Known) {
        let mut levels = known.levels.clone();
        let mut schemas = known.schemas.clone();
        // Without the mandatory ones nothing would take a request: they hold even while they are not there.
        for (resource, object) in bootstrap::mandatory() {
            let name = meta::name(object).to_string();
            let none = HeaderValue::from_static("");
            match resource {
                SCHEMAS => drop(schemas.entry(name).or_insert_with(|| (none, Arc::new(Rules::of(object))))),
                _ => drop(levels.entry(name).or_insert_with(|| (none, level::Spec::of(object)))),
            }
        }
        let shares: u32 = levels.values().map(|(_, spec)| spec.shares).sum();
        for (name, (_, spec)) in &levels {
            let new = || Arc::new(Level::new(name, self.pool.clone()));
            known.live.entry(name.clone()).or_insert_with(new).set(spec, self.pool.total, shares);
        }
        known.live.retain(|name, level| {
            let stays = levels.contains_key(name);
            if !stays {
                level.retire();
            }
            stays
        });
        let mut used: Vec<Arc<Schema>> = schemas
            .iter()
            .filter_map(|(name, (uid, rules))| {
                // A schema that leads nowhere takes no request.
                let (level_uid, _) = levels.get(&rules.level)?;
                Some(Arc::new(Schema {
                    name: name.as_str().into(),
                    uid: uid.clone(),
                    level_uid: level_uid.clone(),
                    rules: rules.clone(),
                    level: known.live.get(&rules.level)?.clone(),
                    statistics: known.statistics.entry(name.clone()).or_default().clone(),
                }))
            })
            .collect();
        known.statistics.retain(|name, _| schemas.contains_key(name));
        used.sort_by(|a, b| (a.rules.precedence, &a.name).cmp(&(b.rules.precedence, &b.name)));
        let catch_all = used.iter().find(|schema| &*schema.name == bootstrap::CATCH_ALL).cloned();
        let mut levels: Vec<Arc<Level>> = known.live.values().cloned().collect();
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        self.pool.share(&levels);
        self.config.store(Arc::new(Config { schemas: used, catch_all, levels }));
    }
}

/// Whether a request lives so long that it takes no part in this: streams into containers, and logs.
pub fn is_exempt_by_nature(ask: &Ask) -> bool {
    const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
    matches!(&ask.verb, Verb::Other(word) if word == "proxy")
        || ask.target.as_ref().is_some_and(|target| STREAMS.contains(&target.subresource.as_str()))
}

/// How many seats a request costs. A list's are by the bytes it will hold; `snapshot` tells what there is of its resource.
pub fn seats(ask: &Ask, level: &Level, snapshot: impl FnOnce() -> Option<Arc<Snapshot>>) -> u32 {
    let initial = || ask.query.flag("sendInitialEvents") == Some(true);
    let lists = ask.verb == Verb::List || (ask.verb == Verb::Watch && initial());
    if level.exempt || !lists || ask.target.as_ref().is_some_and(|target| !target.name.is_empty()) {
        return 1;
    }
    let most = (f64::from(level.nominal()) * LIST_SEATS_SHARE).ceil() as u32;
    let most = most.clamp(1, LIST_SEATS_MAX);
    let Ok(options) = ListOptions::parse(&ask.query) else { return most };
    let Some(snapshot) = snapshot() else { return 1 };
    let mut count = snapshot.entries.len();
    if let Ok(limit @ 1..) = usize::try_from(options.limit) {
        count = count.min(limit);
    }
    let sample = snapshot.entries.values().take(SAMPLE_OBJECTS);
    let (objects, bytes) = sample.fold((0, 0), |(objects, bytes), entry| (objects + 1, bytes + entry.json.len()));
    let bytes = count.saturating_mul(bytes.checked_div(objects).unwrap_or(0)).min(LIST_BYTES_AT_ONCE);
    u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(most).clamp(1, most)
}

/// A seat for a request, or why there is none. Waits where its level queues, until a part of the request's time is over.
pub async fn sit(schema: &Arc<Schema>, user: &User, ask: &Ask, seats: u32, deadline: Instant) -> Result<Seat, Refused> {
    let wait = (deadline.saturating_duration_since(Instant::now()) / 4).min(WAIT_MAX);
    level::sit(schema, || schema.flow(user, ask), seats, wait).await
}

/// A panic while a lock was held left nothing half done: configuration is stored as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
