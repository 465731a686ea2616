//! Unified diffs of JSON values as Go's difflib prints them: blocks that match longest first, three lines of context.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;
use serde_json::Value;

const CONTEXT: usize = 3;
/// From this many lines on, lines that are everywhere do not start a match.
const POPULAR_FROM: usize = 200;

/// The differing lines of two values, printed with an indent of one.
pub fn of_values(old: &Value, new: &Value) -> String {
    let (old, new) = (print(old), print(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut out = String::new();
    for group in groups(&old, &new) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (from, to) = (first.old.start..last.old.end, first.new.start..last.new.end);
        out.push_str(&format!("@@ -{} +{} @@\n", span(&from), span(&to)));
        for step in &group {
            let mut push = |mark: char, lines: &[&str]| {
                lines.iter().for_each(|line| out.push_str(&format!("{mark}{line}\n")));
            };
            if step.same {
                push(' ', &old[step.old.clone()]);
            } else {
                push('-', &old[step.old.clone()]);
                push('+', &new[step.new.clone()]);
            }
        }
    }
    out
}

fn print(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Writing a value into memory does not fail.
    let _ = value.serialize(&mut writer);
    String::from_utf8(bytes).unwrap_or_default()
}

fn span(lines: &Range<usize>) -> String {
    match lines.len() {
        1 => format!("{}", lines.start + 1),
        0 => format!("{},0", lines.start),
        count => format!("{},{count}", lines.start + 1),
    }
}

/// A run of lines that both have, or what takes the place of what.
#[derive(Clone, Debug)]
struct Step {
    same: bool,
    old: Range<usize>,
    new: Range<usize>,
}

/// The steps that change something, with their context, those apart from each other apart.
fn groups(old: &[&str], new: &[&str]) -> Vec<Vec<Step>> {
    let mut steps = steps(old, new);
    if let Some(first) = steps.first_mut().filter(|step| step.same) {
        first.old.start = first.old.start.max(first.old.end.saturating_sub(CONTEXT));
        first.new.start = first.new.start.max(first.new.end.saturating_sub(CONTEXT));
    }
    if let Some(last) = steps.last_mut().filter(|step| step.same) {
        last.old.end = last.old.end.min(last.old.start + CONTEXT);
        last.new.end = last.new.end.min(last.new.start + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group: Vec<Step> = Vec::new();
    for step in steps {
        if step.same && step.old.len() > 2 * CONTEXT {
            let mut before = step.clone();
            before.old.end = before.old.start + CONTEXT;
            before.new.end = before.new.start + CONTEXT;
            group.push(before);
            groups.push(std::mem::take(&mut group));
            let (from, to) = (step.old.end - CONTEXT, step.new.end - CONTEXT);
            group.push(Step { same: true, old: from..step.old.end, new: to..step.new.end });
        } else {
            group.push(step);
        }
    }
    groups.push(group);
    groups.retain(|group| group.iter().any(|step| !step.same));
    groups
}

fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let mut blocks = Vec::new();
    matches(old, new, &places(new), 0..old.len(), 0..new.len(), &mut blocks);
    blocks.push((old.len(), new.len(), 0));
    let (mut i, mut j) = (0, 0);
    let mut out: Vec<Step> = Vec::new();
    for (from, to, size) in blocks {
        if i < from || j < to {
            out.push(Step { same: false, old: i..from, new: j..to });
        }
        (i, j) = (from + size, to + size);
        match out.last_mut() {
            _ if size == 0 => {}
            Some(last) if last.same => (last.old.end, last.new.end) = (i, j),
            _ => out.push(Step { same: true, old: from..i, new: to..j }),
        }
    }
    out
}

/// Where each line is, without the lines that are everywhere in a long text.
fn places<'a>(lines: &[&'a str]) -> HashMap<&'a str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in lines.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if lines.len() >= POPULAR_FROM {
        let most = lines.len() / 100 + 1;
        places.retain(|_, found| found.len() <= most);
    }
    places
}

type Places<'a> = HashMap<&'a str, Vec<usize>>;

/// The longest run that both ranges have, and so on before and after it.
fn matches(
    old: &[&str],
    new: &[&str],
    places: &Places,
    a: Range<usize>,
    b: Range<usize>,
    out: &mut Vec<(usize, usize, usize)>,
) {
    let (from, to, size) = longest(old, new, places, &a, &b);
    if size == 0 {
        return;
    }
    if a.start < from && b.start < to {
        matches(old, new, places, a.start..from, b.start..to, out);
    }
    out.push((from, to, size));
    if from + size < a.end && to + size < b.end {
        matches(old, new, places, from + size..a.end, to + size..b.end, out);
    }
}

fn longest(old: &[&str], new: &[&str], places: &Places, a: &Range<usize>, b: &Range<usize>) -> (usize, usize, usize) {
    let (mut from, mut to, mut size) = (a.start, b.start, 0);
    // How long a run ends at each line of the new text.
    let mut ending: HashMap<usize, usize> = HashMap::new();
    for i in a.clone() {
        let mut next = HashMap::new();
        for &j in places.get(old[i]).map(Vec::as_slice).unwrap_or_default().iter().filter(|j| b.contains(j)) {
            let length = 1 + j.checked_sub(1).and_then(|before| ending.get(&before)).copied().unwrap_or_default();
            next.insert(j, length);
            if length > size {
                (from, to, size) = (i + 1 - length, j + 1 - length, length);
            }
        }
        ending = next;
    }
    // Lines that are everywhere extend a match.
    while from > a.start && to > b.start && old[from - 1] == new[to - 1] {
        (from, to, size) = (from - 1, to - 1, size + 1);
    }
    while from + size < a.end && to + size < b.end && old[from + size] == new[to + size] {
        size += 1;
    }
    (from, to, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(old: Value, new: Value, expected: &str) {
        assert_eq!(of_values(&old, &new), expected);
    }

    #[test]
    fn lines_far_apart_are_told_apart() {
        let numbers =
            |changed: &[usize]| -> Value { (0..20).map(|n| if changed.contains(&n) { n + 100 } else { n }).collect() };
        check(
            numbers(&[]),
            numbers(&[1, 15]),
            "@@ -1,6 +1,6 @@\n [\n  0,\n- 1,\n+ 101,\n  2,\n  3,\n  4,\n\
             @@ -14,7 +14,7 @@\n  12,\n  13,\n  14,\n- 15,\n+ 115,\n  16,\n  17,\n  18,\n",
        );
        check(numbers(&[]), numbers(&[]), "");
    }

    #[test]
    fn null_becomes_a_list() {
        check(
            json!({"Image": "a", "Command": null, "Args": null}),
            json!({"Image": "a", "Command": ["x"], "Args": null}),
            "@@ -1,5 +1,7 @@\n {\n  \"Image\": \"a\",\n- \"Command\": null,\n+ \"Command\": [\n+  \"x\"\n+ ],\n  \"Args\": null\n }\n",
        );
    }
}
