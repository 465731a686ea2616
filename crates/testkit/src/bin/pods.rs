//! `pods`: counted runs of many pods on a server of the built binary, for `docs/benchmarks.md`. Not part of the tests, which run a
//! few of them.

use testkit::many::{Many, run};

fn main() {
    let mut many = Many { at_once: 500, lives: 10_000, kills: 340, ..Many::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok());
        match (word.as_str(), number) {
            ("--at-once", Some(number)) => many.at_once = number,
            ("--lives", Some(number)) => many.lives = number,
            ("--kills", Some(number)) => many.kills = number,
            ("--user", Some(number)) => many.user = u32::try_from(number).ok(),
            ("--apart", Some(number)) => many.apart = number > 0,
            _ => {
                eprintln!("usage: pods [--at-once N] [--lives N] [--kills N] [--user UID] [--apart 0|1]");
                std::process::exit(2);
            }
        }
    }
    let found = run(&many);
    println!("{many:?}\n{found}");
    std::process::exit(if found.is_clean() { 0 } else { 1 });
}
