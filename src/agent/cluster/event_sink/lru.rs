//! A map of bounded size: what was used least recently goes first.

use std::collections::HashMap;
use std::hash::Hash;

/// How much each of client-go's caches of events keeps.
pub(super) const KEPT: usize = 4096;

/// At most [`KEPT`] values.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    values: HashMap<K, (u64, V)>,
    uses: u64,
}

impl<K, V> Default for Lru<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), uses: 0 }
    }
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    /// The value of this key, a new one where there is none. Another one goes for it where there are too many.
    pub fn get_or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.uses = self.uses.saturating_add(1);
        if self.values.len() >= KEPT && !self.values.contains_key(&key) {
            // Rare, and not worth an order that each use would have to keep.
            let oldest = self.values.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.values.remove(&oldest));
        }
        let (used, value) = self.values.entry(key).or_insert_with(|| (0, new()));
        *used = self.uses;
        value
    }

    /// Drops the values that are of no use any more.
    pub fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.values.retain(|_, (_, value)| keep(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_where_there_is_too_much() {
        let mut lru = Lru::default();
        for key in 0..KEPT {
            lru.get_or_insert_with(key, || key);
        }
        lru.get_or_insert_with(0, || KEPT);
        lru.get_or_insert_with(KEPT, || KEPT);
        assert_eq!(lru.values.len(), KEPT);
        assert_eq!(*lru.get_or_insert_with(0, || KEPT), 0, "it was used since");
        assert_eq!(*lru.get_or_insert_with(1, || KEPT), KEPT, "it was not");
        lru.retain(|value| *value == KEPT);
        assert_eq!(lru.values.len(), 2);
    }
}
