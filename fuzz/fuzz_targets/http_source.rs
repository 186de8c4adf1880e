//! Whatever a URL answers, reading it ends, with a list of pods or with an error.

#![no_main]

use std::collections::BTreeSet;

use jiff::Timestamp;
use kubeboot::agent::pod::{Origin, Place, PodList};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let origin = Origin { node_name: "node1", place: Place::Url("http://x/pods"), seen: Timestamp::UNIX_EPOCH };
    match PodList::from_bytes(bytes, origin) {
        Ok(list) => {
            let keys: BTreeSet<_> = list.pods.iter().map(|pod| &pod.key).collect();
            assert_eq!(keys.len(), list.pods.len(), "one pod a name");
            assert!(list.duplicates.iter().all(|key| keys.contains(key)));
            assert_eq!(PodList::from_bytes(bytes, origin).unwrap(), list, "the same bytes are the same pods");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
