//! What was learned of tokens, by the hash of each, bounded: two generations, of which the older is forgotten when the younger
//! is full. Knows nothing of what it remembers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// The SHA-256 of a token, and of what else its meaning depends on.
pub type Hash = [u8; 32];

/// Values by hash. What was not used while a whole generation filled up is forgotten.
pub struct Remembered<V> {
    /// How many values a generation holds.
    generation_max: usize,
    generations: Mutex<Generations<V>>,
}

struct Generations<V> {
    young: HashMap<Hash, Arc<V>>,
    old: HashMap<Hash, Arc<V>>,
}

impl<V> Remembered<V> {
    /// Remembers up to twice so many values.
    pub fn new(generation_max: usize) -> Remembered<V> {
        let generations = Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() });
        Remembered { generation_max, generations }
    }

    pub fn get(&self, hash: &Hash) -> Option<Arc<V>> {
        let mut generations = self.lock();
        if let Some(value) = generations.young.get(hash) {
            return Some(value.clone());
        }
        let value = generations.old.remove(hash)?;
        generations.put(*hash, value.clone(), self.generation_max);
        Some(value)
    }

    pub fn put(&self, hash: Hash, value: Arc<V>) {
        self.lock().put(hash, value, self.generation_max);
    }

    fn lock(&self) -> MutexGuard<'_, Generations<V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Generations<V> {
    fn put(&mut self, hash: Hash, value: Arc<V>, max: usize) {
        if self.young.len() >= max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, value);
    }
}

/// The hash of a token.
pub fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_is_forgotten_in_the_end() {
        const MAX: usize = 64;
        let remembered = Remembered::new(MAX);
        for n in 0..5 * MAX {
            remembered.put(hash(&n.to_string()), Arc::new(n));
            assert!(remembered.get(&hash("0")).is_some(), "one in use stays");
        }
        let generations = remembered.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * MAX);
    }
}
