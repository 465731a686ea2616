//! Loads of requests over kept-alive connections, for crash tests and benchmarks. Bounded in count; on loopback only.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::h2::{Event, Fleet, Prepared};
use crate::wire::{Answer, Endpoint, Request};

/// How long one answer of a load may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What a load did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests with an answer below 400.
    pub good: usize,
    pub refused: usize,
    /// Connections that broke; their workers stop.
    pub broken: usize,
    pub took: Duration,
    /// The time of each good answer, in order of length.
    pub times: Vec<Duration>,
}

impl Report {
    pub fn per_second(&self) -> f64 {
        self.good as f64 / self.took.as_secs_f64()
    }

    /// The time that this share of answers, 0 to 1, was within.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }
}

/// Sends requests 0 to `count` over `clients` connections, each as soon as the connection's last was answered, and shows
/// every answer to `seen`. A worker whose connection breaks stops; the others go on.
pub fn load(
    endpoint: &Endpoint,
    clients: usize,
    count: usize,
    make: impl Fn(usize) -> Request + Sync,
    seen: impl Fn(usize, &Answer) + Sync,
) -> Report {
    assert!(endpoint.address().ip().is_loopback(), "a load is for loopback only, not {}", endpoint.address());
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut report = Report::default();
        let work = |report: &mut Report| -> io::Result<()> {
            let mut connection = endpoint.connect(ANSWER_LIMIT)?;
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok(());
                }
                if !connection.is_open() {
                    connection = endpoint.connect(ANSWER_LIMIT)?;
                }
                let begin = Instant::now();
                let answer = connection.exchange(&make(i))?;
                if answer.head.status < 400 {
                    report.good += 1;
                    report.times.push(begin.elapsed());
                } else {
                    report.refused += 1;
                }
                seen(i, &answer);
            }
        };
        report.broken = usize::from(work(&mut report).is_err());
        report
    };
    let begin = Instant::now();
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|w| w.join().expect("a worker does not panic")).collect()
    });
    let mut all = Report { took: begin.elapsed(), ..Report::default() };
    for report in reports {
        all.good += report.good;
        all.refused += report.refused;
        all.broken += report.broken;
        all.times.extend(report.times);
    }
    all.times.sort();
    all
}

/// Sends one request `count` times over HTTP/2 connections, each of which has one request under way, from one thread: what
/// `h2load -n COUNT -c CLIENTS -t 1 -m 1` does.
pub fn repeat(endpoint: &Endpoint, clients: usize, count: usize, request: &Request) -> io::Result<Report> {
    let request = Prepared::new(request);
    let clients = clients.min(count);
    let mut fleet = Fleet::open(endpoint, clients)?;
    let mut report = Report::default();
    let begin = Instant::now();
    let mut begun = vec![begin; clients];
    let mut good = vec![false; clients];
    for at in 0..clients {
        fleet.connection(at).send(&request)?;
    }
    let mut sent = clients;
    while report.good + report.refused < count {
        let came = fleet.turn(Instant::now() + ANSWER_LIMIT, |at, event| {
            match event {
                Event::Head { status } => good[at] = status < 400,
                Event::Data { .. } => {}
                Event::End => {
                    let now = Instant::now();
                    report.times.extend(good[at].then(|| now - begun[at]));
                    report.good += usize::from(good[at]);
                    report.refused += usize::from(!good[at]);
                    begun[at] = now;
                    sent += 1;
                    return Ok((sent <= count).then_some(&request));
                }
            }
            Ok(None)
        })?;
        if !came {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    report.took = begin.elapsed();
    report.times.sort();
    Ok(report)
}

/// Watches that one connection carries.
const WATCHES_A_CONNECTION: usize = 100;

/// What a fan-out did.
#[derive(Debug, Default)]
pub struct FanOut {
    pub opened: usize,
    /// Watches that ended, or were refused.
    pub closed: usize,
    /// From just before a change was sent until a watch told of it, in order of length.
    pub lags: Vec<Duration>,
}

/// Changes that a fan-out makes, one by one.
const FAN_CHANGES: usize = 50;
/// From the answer to one of them to the next.
const FAN_GAP: Duration = Duration::from_millis(50);

/// Opens `watchers` watches, then makes changes one by one, and takes the time until each watch has shown each of them.
/// `change` is the creation of an object of a name.
pub fn fan_out(
    endpoint: &Endpoint,
    watch: &Request,
    watchers: usize,
    change: impl Fn(&str) -> Request,
) -> io::Result<FanOut> {
    let watch = Prepared::new(watch);
    let connections = watchers.div_ceil(WATCHES_A_CONNECTION);
    let writer = connections;
    let mut fleet = Fleet::open(endpoint, connections + 1)?;
    for at in 0..watchers {
        fleet.connection(at / WATCHES_A_CONNECTION).send(&watch)?;
    }
    let run = format!("fan{}-", SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos()));
    let run_at = memchr::memmem::Finder::new(run.as_bytes());
    let mut fan = FanOut::default();
    let mut lines: HashMap<(usize, u32), Vec<u8>> = HashMap::new();
    let mut sent: HashMap<Vec<u8>, Instant> = HashMap::new();
    let mut due = None;
    while fan.lags.len() < FAN_CHANGES * (watchers - fan.closed) {
        if fan.opened + fan.closed == watchers && sent.is_empty() {
            due = Some(Instant::now());
        }
        if due.is_some_and(|due| due <= Instant::now()) {
            let name = format!("{run}{}", sent.len());
            let change = Prepared::new(&change(&name));
            sent.insert(name.into_bytes(), Instant::now());
            fleet.connection(writer).send(&change)?;
            due = None;
        }
        let until = due.unwrap_or_else(|| Instant::now() + ANSWER_LIMIT);
        let mut show = |line: &[u8]| {
            let name = run_at.find(line).map(|at| &line[at..]);
            let name = name.map(|name| &name[..memchr::memchr(b'"', name).unwrap_or(name.len())]);
            fan.lags.extend(name.and_then(|name| sent.get(name)).map(Instant::elapsed));
        };
        let came = fleet.turn(until, |at, event| {
            match event {
                Event::Head { status } if at == writer => match status < 400 {
                    true => {}
                    false => return Err(io::Error::other(format!("a change was answered with {status}"))),
                },
                Event::End if at == writer => due = (sent.len() < FAN_CHANGES).then(|| Instant::now() + FAN_GAP),
                Event::Data { .. } if at == writer => {}
                Event::Head { status } => fan.opened += usize::from(status == 200),
                Event::End => fan.closed += 1,
                // Most events come whole.
                Event::Data { stream, bytes } if bytes.ends_with(b"\n") && !lines.contains_key(&(at, stream)) => {
                    bytes.split_inclusive(|byte| *byte == b'\n').for_each(&mut show);
                }
                Event::Data { stream, bytes } => {
                    let line = lines.entry((at, stream)).or_default();
                    line.extend_from_slice(bytes);
                    if line.ends_with(b"\n") {
                        line.split_inclusive(|byte| *byte == b'\n').for_each(&mut show);
                        lines.remove(&(at, stream));
                    }
                }
            }
            Ok(None)
        })?;
        if !came && due.is_none() {
            break;
        }
    }
    fan.lags.sort();
    Ok(fan)
}
