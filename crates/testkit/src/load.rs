//! A load of requests over kept-alive connections, for crash tests and benchmarks. Bounded in count; on loopback only.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
