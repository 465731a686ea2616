//! Our client meets every fault: no call fails, and its watch tells its program of no error. How soon all is well again, and what
//! others make of the same faults, is measured by `cargo xtask faults`.

use std::time::Duration;

use testkit::faults::{FAULTS, Subject, meet};

/// What passes by lasts half as long as in the measurements: tests run on machines that have other things to do.
const WINDOW: Duration = Duration::from_millis(500);

#[test]
fn no_call_of_ours_fails() {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let met = FAULTS.map(|fault| (fault, scope.spawn(move || meet(Subject::Ours, fault, WINDOW))));
        let outcomes = met.into_iter().map(|(fault, met)| (fault, met.join().expect("it tells why")));
        let is_well = |outcome: &testkit::faults::Outcome| {
            let recovered = outcome.recovered.is_some() && outcome.watch_recovered.is_some();
            outcome.failed == 0 && outcome.watch_failed == 0 && recovered
        };
        outcomes.filter(|(_, met)| !is_well(met)).map(|(fault, met)| format!("{fault:?}: {met:?}")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
