//! Reads a few fields out of encoded JSON without decoding the rest. Never fails: what is absent or broken is null.

use api::skim::{DEPTH_MAX, Skim};
use serde_json::Value;

/// Pointers that can be asked for at once; what comes after them is null.
pub const POINTERS_MAX: usize = u64::BITS as usize;

/// The values at JSON pointers (`/metadata/labels`), in the order they are asked for; null where there is none.
/// Pointers lead through objects only, and a `0` step takes the first item of a list.
pub fn pick(json: &[u8], pointers: &[&str]) -> Vec<Value> {
    let mut picked = Picked {
        rests: pointers.iter().map(|pointer| pointer.trim_start_matches('/')).collect(),
        found: vec![Value::Null; pointers.len()],
    };
    let asked = pointers.len().min(POINTERS_MAX);
    let wanted = if asked == POINTERS_MAX { u64::MAX } else { (1 << asked) - 1 };
    // A broken document leaves nulls: the caller encoded it, so there is nobody to tell.
    let _ = picked.below(&mut Skim::new(json), wanted, DEPTH_MAX);
    picked.found
}

struct Picked<'a> {
    /// What is left of each pointer at the place that is read.
    rests: Vec<&'a str>,
    found: Vec<Value>,
}

/// The pointers of a set.
fn each(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (first < POINTERS_MAX).then_some(first)
    })
}

/// The pointers that go on below a step, and those that end there.
#[derive(Clone, Copy, Default)]
struct Step {
    deeper: u64,
    here: u64,
}

impl Picked<'_> {
    /// Reads a value through which these pointers lead.
    fn below(&mut self, skim: &mut Skim<'_>, mut wanted: u64, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        if skim.object().is_some() {
            while let Some(key) = skim.key()? {
                let step = self.step(wanted, key);
                if step.here == 0 && step.deeper == 0 {
                    skim.value()?;
                } else if step.here == 0 {
                    each(step.deeper).for_each(|i| self.rests[i] = &self.rests[i][key.len() + 1..]);
                    self.below(skim, step.deeper, depth)?;
                    // They have been where they lead; a key that comes twice is none of ours.
                    wanted &= !step.deeper;
                } else {
                    self.take(step, key.len(), &skim.decoded()?);
                }
            }
        } else if skim.list().is_some() {
            let step = self.step(wanted, b"0");
            if skim.item()? {
                self.take(step, 1, &skim.decoded()?);
                while skim.item()? {
                    skim.value()?;
                }
            }
        } else {
            skim.value()?;
        }
        Some(())
    }

    fn step(&self, wanted: u64, key: &[u8]) -> Step {
        let mut step = Step::default();
        for i in each(wanted) {
            match self.rests[i].as_bytes().strip_prefix(key) {
                Some([]) => step.here |= 1 << i,
                Some([b'/', ..]) => step.deeper |= 1 << i,
                _ => {}
            }
        }
        step
    }

    /// Hands a value to the pointers that end at it and to those that lead through it.
    fn take(&mut self, step: Step, step_bytes: usize, value: &Value) {
        for i in each(step.deeper) {
            self.found[i] = value.pointer(&self.rests[i][step_bytes..]).cloned().unwrap_or_default();
        }
        for i in each(step.here) {
            self.found[i] = value.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_picked() {
        let json = br#"{"kind":"Pod","metadata":{"uid":"u","labels":{"a":"b"}},"spec":{"nodeName":"n","x":[1]},"status":{"podIPs":[{"ip":"1"},{"ip":"2"}]}}"#;
        let got =
            pick(json, &["/metadata/uid", "/metadata/labels", "/spec/nodeName", "/spec/none", "/status/podIPs/0/ip"]);
        assert_eq!(got, [json!("u"), json!({"a": "b"}), json!("n"), json!(null), json!("1")]);
    }

    #[test]
    fn anything_else_is_null() {
        assert_eq!(pick(b"[1", &["/a"]), [json!(null)]);
        assert_eq!(pick(br#"{"a":"text"}"#, &["/a/b"]), [json!(null)]);
    }
}
