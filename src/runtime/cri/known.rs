//! Containers as they were last looked at. A list says each one's state, and nothing else of a container changes without
//! it: a list of 200 costs two calls.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::runtime::*;

/// By id.
#[derive(Default)]
pub struct Known(Mutex<HashMap<String, ContainerRecord>>);

impl Known {
    /// The record, whatever has become of it.
    pub fn get(&self, id: &str) -> Option<ContainerRecord> {
        self.lock().get(id).cloned()
    }

    /// Remembers one.
    pub fn put(&self, record: &ContainerRecord) {
        self.lock().insert(record.id.clone(), record.clone());
    }

    /// It is gone.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Remembers all containers of an owner, and forgets those that are not among them.
    pub fn replace(&self, owner: &str, records: &[ContainerRecord]) {
        let mut known = self.lock();
        known.retain(|_, record| record.labels.get(labels::OWNER).is_none_or(|other| other != owner));
        known.extend(records.iter().map(|record| (record.id.clone(), record.clone())));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ContainerRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
