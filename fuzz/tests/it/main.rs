//! Every target in the ordinary tests: on its corpus, and on variations of it, as many as fit into a short time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz::Target;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How long one target is tried: enough to find what a change breaks at once. Minutes are for `cargo xtask fuzz`.
const TIME: Duration = Duration::from_secs(2);
/// Cases that are shrunk and told of at once.
const CASES: u32 = 64;
/// The most bytes that one variation puts in.
const INSERTED_BYTES_MAX: usize = 48;

/// One change of an input.
#[derive(Clone, Debug)]
enum Variation {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Cut(usize, usize),
    /// A piece of the input once more, at another place.
    Repeat(usize, usize, usize),
    /// The rest of another input of the corpus.
    Splice(usize, usize, usize),
}

fn variation() -> impl Strategy<Value = Variation> {
    let (at, length) = (any::<usize>(), 1..32usize);
    prop_oneof![
        (at, any::<u8>()).prop_map(|(at, byte)| Variation::Set(at, byte)),
        (at, vec(any::<u8>(), 1..INSERTED_BYTES_MAX)).prop_map(|(at, bytes)| Variation::Insert(at, bytes)),
        (at, "[ -~]{1,8}").prop_map(|(at, text)| Variation::Insert(at, text.into_bytes())),
        (at, length.clone()).prop_map(|(at, length)| Variation::Cut(at, length)),
        (at, length, any::<usize>()).prop_map(|(at, length, to)| Variation::Repeat(at, length, to)),
        (at, any::<usize>(), any::<usize>()).prop_map(|(at, other, from)| Variation::Splice(at, other, from)),
    ]
}

fn varied(corpus: &[Vec<u8>], seed: usize, variations: &[Variation]) -> Vec<u8> {
    let mut input = corpus[seed % corpus.len()].clone();
    for variation in variations {
        let place = |at: usize| at % (input.len() + 1);
        match variation {
            Variation::Set(at, byte) => {
                let at = place(*at);
                if let Some(old) = input.get_mut(at) {
                    *old = *byte;
                }
            }
            Variation::Insert(at, bytes) => {
                let at = place(*at);
                drop(input.splice(at..at, bytes.iter().copied()));
            }
            Variation::Cut(at, length) => {
                let at = place(*at);
                let end = (at + length).min(input.len());
                drop(input.drain(at..end));
            }
            Variation::Repeat(at, length, to) => {
                let (at, to) = (place(*at), place(*to));
                let piece = input[at..(at + length).min(input.len())].to_vec();
                drop(input.splice(to..to, piece));
            }
            Variation::Splice(at, other, from) => {
                let other = &corpus[other % corpus.len()];
                input.truncate(place(*at));
                input.extend_from_slice(&other[from % (other.len() + 1)..]);
            }
        }
    }
    input
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| std::fs::read(file).expect("a file")).collect()
}

fn check(name: &str) {
    let target = fuzz::target(name).expect("a target");
    let corpus = corpus(target);
    corpus.iter().for_each(|input| (target.check)(input));
    let began = Instant::now();
    // The same inputs each time: a test that fails is one that fails again.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (any::<usize>(), vec(variation(), 0..6));
    while began.elapsed() < TIME {
        let outcome = runner.run(&strategy, |(seed, variations)| {
            let input = varied(&corpus, seed, &variations);
            let held = std::panic::catch_unwind(|| (target.check)(&input));
            held.map_err(|why| {
                let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
                TestCaseError::fail(format!("{:?}: {why}", String::from_utf8_lossy(&input)))
            })
        });
        outcome.unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test] fn $name() { check(stringify!($name)) })*

        #[test]
        fn every_target_is_tried() {
            let tried = [$(stringify!($name)),*];
            assert!(fuzz::ALL.iter().map(|target| target.name).eq(tried), "name them here as there");
        }
    };
}

targets!(
    paths,
    options,
    selectors,
    quantities,
    times,
    jsonpath,
    json,
    yaml,
    protobuf,
    fieldsets,
    objects,
    strategic,
    differences,
    apply,
    definitions,
    asks,
    refusals,
    tokens,
    changes,
    requests,
    spdy,
    channels,
    expressions,
    configurations,
    layers
);
