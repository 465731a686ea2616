//! Choices out of bytes. A shorter tape makes simpler things, and an empty one the simplest: what an engine or a shrinking
//! test cuts away gets smaller.

/// Bytes that decide, from the first to the last; past the end everything is 0.
pub struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    pub fn new(bytes: &'a [u8]) -> Tape<'a> {
        Tape(bytes)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`, which must be at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        let wide: usize =
            if end > 256 { u16::from_le_bytes([self.byte(), self.byte()]).into() } else { self.byte().into() };
        wide % end
    }

    /// True `times` in 256.
    pub fn chance(&mut self, times: u8) -> bool {
        // The end of the tape says no.
        !self.is_over() && self.byte() < times
    }

    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// A text of a few letters, of which some mean something in paths, selectors and escapes.
    pub fn text(&mut self, letters: &[char], length_max: usize) -> String {
        (0..self.below(length_max + 1)).map(|_| self.one_of(letters)).collect()
    }
}
