//! Priority levels: seats, who may lend them to whom, and the queues before them. Knows nothing of requests but how many
//! seats they cost and which flow they belong to.
//!
//! A level owns the part of its nominal seats that it lends to nobody. What all levels lend lies in one pool, out of which
//! each may take beyond its own, up to its limit; where seats come back to the pool, levels that have less than they are
//! entitled to go first. A seat is never taken away from a request that holds it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use api::meta;
use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::schema::Schema;
use crate::metrics::WAITS;

/// What a request is thought to take until it is known, in seconds per seat.
const ESTIMATE_SECONDS: f64 = 0.003;

/// Why a request gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All seats are taken and the level keeps no queues.
    ConcurrencyLimit,
    QueueFull,
    /// It waited as long as it may.
    TimeOut,
}

pub const REFUSED_COUNT: usize = 3;

impl Refused {
    pub const ALL: [Refused; REFUSED_COUNT] = [Refused::ConcurrencyLimit, Refused::QueueFull, Refused::TimeOut];

    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::ConcurrencyLimit => "concurrency-limit",
            Refused::QueueFull => "queue-full",
            Refused::TimeOut => "time-out",
        }
    }
}

/// What a PriorityLevelConfiguration says, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    exempt: bool,
    /// Of all seats, in proportion to everybody's.
    pub shares: u32,
    lendable_percent: u32,
    borrowing_percent: Option<u32>,
    queuing: Option<Queuing>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Queuing {
    queues: usize,
    hand: usize,
    length_max: usize,
}

impl Spec {
    pub fn of(level: &Value) -> Spec {
        let exempt = meta::text_at(level, &["spec", "type"]) == "Exempt";
        let spec = &level["spec"][if exempt { "exempt" } else { "limited" }];
        let number = |of: &Value, field: &str| of[field].as_u64().and_then(|number| u32::try_from(number).ok());
        let response = &spec["limitResponse"];
        let queuing = (response["type"] == "Queue").then(|| {
            let count = |field, default| number(&response["queuing"], field).map_or(default, |count| count as usize);
            Queuing {
                queues: count("queues", 64).max(1),
                hand: count("handSize", 8).max(1),
                length_max: count("queueLengthLimit", 50),
            }
        });
        Spec {
            exempt,
            shares: number(spec, "nominalConcurrencyShares").unwrap_or(if exempt { 0 } else { 30 }),
            lendable_percent: number(spec, "lendablePercent").unwrap_or(0).min(100),
            borrowing_percent: number(spec, "borrowingLimitPercent"),
            queuing,
        }
    }
}

/// A level in use.
pub struct Level {
    pub name: Arc<str>,
    /// Nobody waits here, and nothing is limited.
    pub exempt: bool,
    /// Seats by its shares, of which it keeps `own_max` for itself, and most that it may hold.
    nominal: AtomicU32,
    own_max: AtomicU32,
    max: AtomicU32,
    /// Seats that are taken: of its own, and out of the pool.
    own: AtomicU32,
    borrowed: AtomicU32,
    /// Requests in the queues. Who frees a seat looks here whether somebody wants it.
    waiting: AtomicU32,
    pool: Arc<Pool>,
    queues: Mutex<Queues>,
    /// No longer configured: who still waits goes on.
    retired: AtomicBool,
}

/// The seats that levels lend each other.
pub struct Pool {
    /// All seats there are, lent or not.
    pub total: u32,
    size: AtomicU32,
    used: AtomicU32,
    /// Requests that wait, at all levels.
    waiting: AtomicU32,
    levels: ArcSwap<Vec<Weak<Level>>>,
}

#[derive(Default)]
struct Queues {
    queuing: Option<Queuing>,
    queues: Vec<Queue>,
    /// Where the queues have come to in seat-seconds: what a queue that was empty begins with.
    clock: f64,
    next_id: u64,
}

#[derive(Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    /// Seat-seconds that this queue has had. The one that had least is next.
    had: f64,
}

struct Waiter {
    id: u64,
    seats: u32,
    schema: Arc<Schema>,
    tell: oneshot::Sender<Seat>,
}

/// Seats that a request holds. Dropping it frees them, for whoever waits.
pub struct Seat {
    schema: Arc<Schema>,
    own: u32,
    borrowed: u32,
    /// All of them, where nothing is limited too.
    seats: u32,
    /// The queue it came through, and when it was let in.
    queue: Option<(usize, Instant)>,
}

/// Seats at a schema's level, or why there are none. `flow` is asked for only where the request has to wait.
pub async fn sit(
    schema: &Arc<Schema>,
    flow: impl FnOnce() -> u64,
    seats: u32,
    wait: Duration,
) -> Result<Seat, Refused> {
    let level = &schema.level;
    let refused = |why: Refused| {
        schema.statistics.refused[why as usize].fetch_add(1, Ordering::Relaxed);
        why
    };
    if level.exempt {
        schema.statistics.waits.add(&WAITS, 0.0);
        return Ok(Seat::new(schema.clone(), seats, (0, 0), None));
    }
    if level.waiting.load(Ordering::SeqCst) == 0
        && let Some(taken) = level.take(seats)
    {
        schema.statistics.waits.add(&WAITS, 0.0);
        return Ok(Seat::new(schema.clone(), seats, taken, None));
    }
    let began = Instant::now();
    let (mut place, told) = level.enqueue(schema, flow(), seats).map_err(refused)?;
    let mut told = told;
    let seat = match tokio::time::timeout(wait, &mut told).await {
        Ok(seat) => seat.ok(),
        Err(_) => {
            place.give_up();
            // It may have been let in at the last moment.
            told.try_recv().ok()
        }
    };
    let seat = seat.ok_or_else(|| refused(Refused::TimeOut))?;
    schema.statistics.waits.add(&WAITS, began.elapsed().as_secs_f64());
    Ok(seat)
}

impl Level {
    pub fn new(name: &str, pool: Arc<Pool>) -> Level {
        Level {
            name: name.into(),
            // Only the level of this name may be exempt, and it is nothing else.
            exempt: name == super::bootstrap::EXEMPT,
            nominal: AtomicU32::new(0),
            own_max: AtomicU32::new(0),
            max: AtomicU32::new(0),
            own: AtomicU32::new(0),
            borrowed: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            pool,
            queues: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// Takes on what its object says, `shares` being everybody's together. Counts at once for all who come or wait.
    pub fn set(&self, spec: &Spec, total: u32, shares: u32) {
        let part = |of: u32, by: u32, all: u32| (f64::from(of) * f64::from(by) / f64::from(all.max(1))).round() as u32;
        let nominal = (f64::from(total) * f64::from(spec.shares) / f64::from(shares.max(1))).ceil() as u32;
        let lent = part(nominal, spec.lendable_percent, 100);
        let borrows = spec.borrowing_percent.map(|percent| part(nominal, percent, 100));
        self.nominal.store(nominal, Ordering::SeqCst);
        self.own_max.store(nominal - lent, Ordering::SeqCst);
        self.max.store(borrows.map_or(total.max(nominal), |more| nominal.saturating_add(more)), Ordering::SeqCst);
        let mut queues = lock(&self.queues);
        if queues.queuing != spec.queuing {
            // Who waits keeps its place in queues that are no longer dealt.
            let count = spec.queuing.map_or(0, |queuing| queuing.queues).max(queues.queues.len());
            queues.queues.resize_with(count, Queue::default);
            queues.queuing = spec.queuing;
        }
        self.dispatch(&mut queues);
    }

    /// Lets everybody in who waits: nobody will come any more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.dispatch(&mut lock(&self.queues));
    }

    pub fn nominal(&self) -> u32 {
        self.nominal.load(Ordering::Relaxed)
    }

    /// Seats that it lends to nobody.
    pub fn least(&self) -> u32 {
        self.own_max.load(Ordering::Relaxed)
    }

    /// Most seats that it may hold while nobody else wants them.
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Seats that are taken.
    pub fn taken(&self) -> u32 {
        self.own.load(Ordering::Relaxed) + self.borrowed.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes seats if there are enough: how many of its own, and how many out of the pool.
    fn take(&self, seats: u32) -> Option<(u32, u32)> {
        let own_max = self.own_max.load(Ordering::SeqCst);
        let mut own = self.own.load(Ordering::SeqCst);
        let (before, mine) = loop {
            let mine = seats.min(own_max.saturating_sub(own));
            match self.own.compare_exchange_weak(own, own + mine, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(before) => break (before, mine),
                Err(now) => own = now,
            }
        };
        let rest = seats - mine;
        if rest == 0 {
            return Some((mine, 0));
        }
        let borrowed = self.borrowed.fetch_add(rest, Ordering::SeqCst);
        let max = self.max.load(Ordering::SeqCst);
        // A request that is wider than the level has become is let in when it is alone.
        let fits = before + borrowed + seats <= max || (before + borrowed == 0 && max > 0);
        let allowed = self.retired.load(Ordering::SeqCst) || fits;
        if allowed && self.pool.take(rest, self.retired.load(Ordering::SeqCst)) {
            return Some((mine, rest));
        }
        self.borrowed.fetch_sub(rest, Ordering::SeqCst);
        self.own.fetch_sub(mine, Ordering::SeqCst);
        None
    }

    fn enqueue(
        self: &Arc<Level>,
        schema: &Arc<Schema>,
        flow: u64,
        seats: u32,
    ) -> Result<(Place, oneshot::Receiver<Seat>), Refused> {
        let mut queues = lock(&self.queues);
        let Some(queuing) = queues.queuing else { return Err(Refused::ConcurrencyLimit) };
        let hand = deal(flow, queuing.queues, queuing.hand);
        let shortest = hand.into_iter().min_by_key(|queue| queues.queues[*queue].waiters.len());
        let at = shortest.filter(|queue| queues.queues[*queue].waiters.len() < queuing.length_max);
        let Some(at) = at else { return Err(Refused::QueueFull) };
        let (tell, told) = oneshot::channel();
        let (id, clock) = (queues.next_id, queues.clock);
        queues.next_id += 1;
        let queue = &mut queues.queues[at];
        if queue.waiters.is_empty() {
            // Nobody saves up for later by not asking.
            queue.had = queue.had.max(clock);
        }
        queue.waiters.push_back(Waiter { id, seats, schema: schema.clone(), tell });
        schema.statistics.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.pool.waiting.fetch_add(1, Ordering::SeqCst);
        // Who freed a seat before it could see the waiter did not call anybody.
        self.dispatch(&mut queues);
        Ok((Place { level: self.clone(), queue: at, id, given_up: false }, told))
    }

    /// Lets in who is next, as long as there are seats.
    fn dispatch(&self, queues: &mut Queues) {
        loop {
            let waiting = queues.queues.iter().enumerate().filter(|(_, queue)| !queue.waiters.is_empty());
            let Some((at, _)) = waiting.min_by(|(_, a), (_, b)| a.had.total_cmp(&b.had)) else { return };
            let Some(seats) = queues.queues[at].waiters.front().map(|waiter| waiter.seats) else { return };
            // The next one waits until there are enough for it: else a wide one would wait forever.
            let Some(taken) = self.take(seats) else { return };
            let queue = &mut queues.queues[at];
            let Some(waiter) = queue.waiters.pop_front() else { return };
            queues.clock = queues.clock.max(queue.had);
            queue.had += f64::from(seats) * ESTIMATE_SECONDS;
            self.left(&waiter.schema);
            let seat = Seat::new(waiter.schema, seats, taken, Some((at, Instant::now())));
            if let Err(seat) = waiter.tell.send(seat) {
                // Gone meanwhile. The lock is held, so this seat is put back by hand.
                seat.put_back();
            }
        }
    }

    /// One who waited does so no longer.
    fn left(&self, schema: &Schema) {
        schema.statistics.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.pool.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pool {
    pub fn new(total: u32) -> Pool {
        Pool {
            total,
            size: AtomicU32::new(0),
            used: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            levels: ArcSwap::default(),
        }
    }

    /// Holds what these levels lend.
    pub fn share(&self, levels: &[Arc<Level>]) {
        let lent = levels.iter().filter(|level| !level.exempt);
        let lent = lent.map(|level| level.nominal() - level.own_max.load(Ordering::SeqCst).min(level.nominal())).sum();
        self.size.store(lent, Ordering::SeqCst);
        self.levels.store(Arc::new(levels.iter().map(Arc::downgrade).collect()));
        self.dispatch();
    }

    fn take(&self, seats: u32, always: bool) -> bool {
        let used = self.used.fetch_add(seats, Ordering::SeqCst);
        let fits = always || used + seats <= self.size.load(Ordering::SeqCst);
        if !fits {
            self.used.fetch_sub(seats, Ordering::SeqCst);
        }
        fits
    }

    /// Offers what is free to levels that wait: those first that have less than is theirs.
    fn dispatch(&self) {
        let levels = self.levels.load();
        let waiting = || levels.iter().filter_map(Weak::upgrade).filter(|level| level.waiting() > 0);
        let entitled = |level: &Arc<Level>| level.taken() < level.nominal();
        for level in waiting().filter(entitled) {
            level.dispatch(&mut lock(&level.queues));
        }
        for level in waiting() {
            level.dispatch(&mut lock(&level.queues));
        }
    }
}

impl Seat {
    fn new(schema: Arc<Schema>, seats: u32, taken: (u32, u32), queue: Option<(usize, Instant)>) -> Seat {
        let statistics = &schema.statistics;
        statistics.executing.fetch_add(1, Ordering::Relaxed);
        statistics.seats.fetch_add(seats, Ordering::Relaxed);
        statistics.dispatched.fetch_add(1, Ordering::Relaxed);
        Seat { schema, own: taken.0, borrowed: taken.1, seats, queue }
    }

    /// Frees the seats and calls nobody.
    fn put_back(mut self) {
        self.free();
        (self.own, self.borrowed, self.seats) = (0, 0, 0);
    }

    fn free(&self) {
        let (statistics, level) = (&self.schema.statistics, &self.schema.level);
        statistics.executing.fetch_sub(1, Ordering::Relaxed);
        statistics.seats.fetch_sub(self.seats, Ordering::Relaxed);
        if self.own > 0 {
            level.own.fetch_sub(self.own, Ordering::SeqCst);
        }
        if self.borrowed > 0 {
            level.borrowed.fetch_sub(self.borrowed, Ordering::SeqCst);
            level.pool.used.fetch_sub(self.borrowed, Ordering::SeqCst);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.seats == 0 {
            return;
        }
        self.free();
        let level = &self.schema.level;
        if level.exempt {
            return;
        }
        // What it had is on its queue's account, so that who asks for much waits longer.
        let settle = |queues: &mut Queues| {
            if let Some((at, since)) = self.queue
                && let Some(queue) = queues.queues.get_mut(at)
            {
                queue.had += f64::from(self.seats) * (since.elapsed().as_secs_f64() - ESTIMATE_SECONDS);
            }
        };
        if self.borrowed > 0 && level.pool.waiting.load(Ordering::SeqCst) > 0 {
            settle(&mut lock(&level.queues));
            level.pool.dispatch();
        } else if level.waiting.load(Ordering::SeqCst) > 0 {
            let mut queues = lock(&level.queues);
            settle(&mut queues);
            level.dispatch(&mut queues);
        }
    }
}

/// A place in a queue. Dropped, it is given up.
struct Place {
    level: Arc<Level>,
    queue: usize,
    id: u64,
    given_up: bool,
}

impl Place {
    fn give_up(&mut self) {
        if std::mem::replace(&mut self.given_up, true) {
            return;
        }
        let mut queues = lock(&self.level.queues);
        let Some(queue) = queues.queues.get_mut(self.queue) else { return };
        let Some(at) = queue.waiters.iter().position(|waiter| waiter.id == self.id) else { return };
        if let Some(waiter) = queue.waiters.remove(at) {
            self.level.left(&waiter.schema);
        }
        // Behind a wide one that gave up there may be a narrow one that fits.
        self.level.dispatch(&mut queues);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Shuffle sharding: the queues that a flow may wait in, each at most once. Two flows rarely have all of them in common.
pub fn deal(flow: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut rest = flow;
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    for left in (1..=queues).rev().take(hand) {
        let mut card = (rest % left as u64) as usize;
        rest /= left as u64;
        // The number of the card among those that are left becomes its own number.
        let mut earlier = dealt.clone();
        earlier.sort_unstable();
        for taken in earlier {
            card += usize::from(taken <= card);
        }
        dealt.push(card);
    }
    dealt
}

/// A panic while a lock was held may have lost a waiter, who then waits out its time; counts stay true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
