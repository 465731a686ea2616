//! kube-rs at steady work, for the fault runs: a get and a list in turns, so many a second, and a watcher; a line for each call and each
//! change. With what `Client::try_default` gives, and the watcher's own back-off, as its documentation wants it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let calls_per_second: u32 = std::env::args().nth(1).ok_or("usage: steady CALLS_PER_SECOND")?.parse()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::try_default().await?);
    let mut end = pin!(tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())));
    let watching = tokio::spawn(watch(maps.clone()));
    let mut pace = interval(Duration::from_secs(1) / calls_per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    let mut open = BTreeMap::new();
    for number in 0u64.. {
        tokio::select! {
            _ = &mut end => break,
            _ = pace.tick() => {}
        }
        while let Some(done) = calls.try_join_next() {
            open.remove(&done?);
        }
        open.insert(number, now());
        calls.spawn(call(maps.clone(), number));
    }
    while let Some(done) = calls.try_join_next() {
        open.remove(&done?);
    }
    open.values().for_each(|begun| tell(&format!("open {begun}")));
    watching.abort();
    Ok(())
}

async fn call(maps: Api<ConfigMap>, number: u64) -> u64 {
    let begun = now();
    let outcome = match number % 2 {
        0 => maps.get("still-01").await.map(drop),
        _ => maps.list(&ListParams::default()).await.map(drop),
    };
    match outcome {
        Ok(()) => tell(&format!("call {begun} {} ok", now())),
        Err(error) => tell(&format!("call {begun} {} failed {}", now(), one_line(&error))),
    }
    number
}

async fn watch(maps: Api<ConfigMap>) {
    let mut events = pin!(watcher::watcher(maps, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(map) | Event::Apply(map)) if map.name_any() == "beat" => {
                let number = map.data.as_ref().and_then(|data| data.get("n")).cloned().unwrap_or_default();
                tell(&format!("beat {number} {}", now()));
            }
            Ok(_) => {}
            Err(error) => tell(&format!("watch failed {} {}", now(), one_line(&error))),
        }
    }
}

fn one_line(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out = format!("{out}: {cause}");
        next = cause.source();
    }
    out.replace('\n', " ")
}

fn tell(line: &str) {
    // Who no longer listens has all it wanted.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros())
}
