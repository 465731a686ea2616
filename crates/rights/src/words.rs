//! Words that are nearly the same: typing errors in names. Knows nothing of what the words mean.

/// Edits between two words.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (row[j] + 1).min(row[j + 1] + 1).min(corner + usize::from(x != *y));
            corner = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

/// One word is most likely the other one, mistyped: equal but for case, or one edit apart, two where the words are long.
pub fn is_near(a: &str, b: &str) -> bool {
    /// Up to this length, two edits make another word.
    const SHORT_CHARS: usize = 5;
    if a == b || a.is_empty() || b.is_empty() {
        return false;
    }
    let edits = if a.chars().count().min(b.chars().count()) <= SHORT_CHARS { 1 } else { 2 };
    a.eq_ignore_ascii_case(b) || distance(a, b) <= edits || are_swapped(a, b)
}

/// One name is a part of the other, and long enough for that to be no chance: `reader` and `pod-reader`.
pub fn is_part(a: &str, b: &str) -> bool {
    const PART_CHARS_MIN: usize = 3;
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short.chars().count() >= PART_CHARS_MIN && short != long && long.contains(short)
}

/// Two letters changed places.
fn are_swapped(a: &str, b: &str) -> bool {
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    distance(a, b) == 2 && letters(a) == letters(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_near() {
        assert_eq!((distance("pods", "pdos"), distance("pods", "pods"), distance("pods", "podz")), (2, 0, 1));
        assert!(
            is_near("pod-reader", "pod-raeder")
                && is_near("pod", "pods")
                && is_near("Pods", "pods")
                && is_near("robot", "robto")
        );
        assert!(is_part("reader", "pod-reader") && !is_part("a", "ab") && !is_part("reader", "reader"));
        assert!(!is_near("pods", "pods") && !is_near("nodes", "pods") && !is_near("", "a"));
    }
}
