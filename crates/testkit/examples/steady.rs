//! Our client at steady work, for the fault runs: a get and a list in turns, so many a second, and a watcher; a line for each call and
//! each change. With what `Client::try_default` gives, and nothing set.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kemudi_client::{Api, ApiResource, Client, Dynamic, Event, ListOptions, Resource};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let calls_per_second: u32 = std::env::args().nth(1).ok_or("usage: steady CALLS_PER_SECOND")?.parse()?;
    let client = Client::try_default().await?;
    let resource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
    let namespace = client.default_namespace().to_string();
    let maps = Api::<Dynamic>::namespaced_of(client, &namespace, &resource);
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let watching = tokio::spawn(watch(maps.clone()));
    let mut pace = interval(Duration::from_secs(1) / calls_per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    let mut open = std::collections::BTreeMap::new();
    tokio::pin!(end);
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

async fn call(maps: Api<Dynamic>, number: u64) -> u64 {
    let begun = now();
    let outcome = match number % 2 {
        0 => maps.get("still-01").await.map(drop),
        _ => maps.list().await.map(drop),
    };
    match outcome {
        Ok(()) => tell(&format!("call {begun} {} ok", now())),
        Err(error) => tell(&format!("call {begun} {} failed {}", now(), error.to_string().replace('\n', " "))),
    }
    number
}

async fn watch(maps: Api<Dynamic>) {
    let mut watcher = maps.watcher(&ListOptions::default());
    loop {
        match watcher.next().await {
            Ok(Event::InitApplied(map) | Event::Applied(map)) if map.name() == "beat" => {
                tell(&format!("beat {} {}", map["data"]["n"].as_str().unwrap_or_default(), now()));
            }
            Ok(_) => {}
            Err(error) => tell(&format!("watch failed {} {}", now(), error.to_string().replace('\n', " "))),
        }
    }
}

fn tell(line: &str) {
    // Who no longer listens has all it wanted.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros())
}
