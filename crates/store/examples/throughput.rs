//! Prints how many commits a second the backends make, with 3 KB values, by 1 and by 64 writers:
//! `cargo run --release -p kemudi-store --example throughput -- [DIR]`. Makes its store in a new folder of DIR.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Change, Expect, Store, Value, Write, open};

const VALUE_BYTES: usize = 3 * 1024;
const RUN: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let dir = tempfile::tempdir_in(parent)?;
    for url in ["memory://".to_owned(), format!("disk://{}", dir.path().join("store").display())] {
        let began = Instant::now();
        let store = open(&url)?;
        println!("{:7} open {:>22.1?}", &url[..url.len().min(7)], began.elapsed());
        for (what, updates) in [("create", false), ("update", true)] {
            for writers in [1, 64] {
                let commits = run(&store, writers, updates).await?;
                println!("{:7} {what} by {writers:2}: {:>9.0} commits/s", &url[..url.len().min(7)], commits);
            }
        }
        store.close().await?;
        let began = Instant::now();
        if url.starts_with("disk") {
            let store = open(&url)?;
            println!("disk    open again {:>16.1?}, at revision {}", began.elapsed(), store.revision());
        }
    }
    Ok(())
}

/// Commits per second, each writer on its own keys.
async fn run(store: &Arc<dyn Store>, writers: usize, updates: bool) -> Result<f64, Box<dyn std::error::Error>> {
    let began = Instant::now();
    let writers: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let table: Arc<str> = format!("{updates}-{writers}").into();
                // Object text does not compress to nothing, and neither does this.
                let half = (0..VALUE_BYTES / 2).map(|at| ((at * at) >> 3) as u8).collect::<Vec<u8>>();
                let (mut commits, mut last) = (0_u64, None);
                while began.elapsed() < RUN {
                    let key = if updates { format!("{writer}") } else { format!("{writer}-{commits}") };
                    let expect = last.filter(|_| updates).map_or(Expect::Absent, Expect::At);
                    let value = Value::Stamped { head: half.clone().into(), tail: half.clone().into() };
                    let write = Write { table: table.clone(), key, expect, change: Change::Put(value) };
                    last = Some(store.commit(write).await?);
                    commits += 1;
                }
                Ok::<u64, store::Error>(commits)
            })
        })
        .collect();
    let mut commits = 0;
    for writer in writers {
        commits += writer.await??;
    }
    Ok(commits as f64 / began.elapsed().as_secs_f64())
}
