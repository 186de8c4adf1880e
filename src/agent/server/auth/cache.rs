//! What is remembered for a while, of a limited number of things.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::host::clock::Instant;

/// Values with an end.
pub struct Cache<K, V> {
    most: usize,
    values: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// Of `most` values at a time; the one that would end first goes first.
    pub fn new(most: usize) -> Self {
        Self { most, values: Mutex::default() }
    }

    /// A value, until its end.
    pub fn get(&self, key: &K) -> Option<V> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    /// Keeps a value for so long.
    pub fn put(&self, key: K, value: V, for_so_long: Duration) {
        let (mut values, now) = (self.values.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if values.len() >= self.most && !values.contains_key(&key) {
            values.retain(|_, (_, until)| *until > now);
            let first = values.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            if let Some(first) = first.filter(|_| values.len() >= self.most) {
                values.remove(&first);
            }
        }
        values.insert(key, (value, now + for_so_long));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_lasts_as_long_as_it_may_and_there_are_never_too_many() {
        let cache = Cache::new(3);
        for (key, seconds) in [(1, 30), (2, 10), (3, 20)] {
            cache.put(key, key * 10, Duration::from_secs(seconds));
        }
        assert_eq!(cache.get(&1), Some(10));
        cache.put(4, 40, Duration::from_secs(5));
        assert_eq!(
            [cache.get(&2), cache.get(&1), cache.get(&4)],
            [None, Some(10), Some(40)],
            "2 would have ended first"
        );
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!([cache.get(&1), cache.get(&3), cache.get(&4)], [Some(10), None, None]);
        for key in 5..100 {
            cache.put(key, 0, Duration::from_secs(60));
        }
        assert_eq!(cache.values.lock().unwrap().len(), 3);
    }
}
