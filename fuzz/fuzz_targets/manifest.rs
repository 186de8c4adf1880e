//! Whatever is in a manifest file, reading it ends, with a pod or with an error.

#![no_main]

use std::path::Path;

use jiff::Timestamp;
use kubeboot::agent::pod::{Origin, Place, StaticPod};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let place = Place::File(Path::new("/m/p.yaml"));
    let origin = Origin { node_name: "node1", place, seen: Timestamp::UNIX_EPOCH };
    match StaticPod::from_bytes(bytes, origin) {
        Ok(pod) => {
            // What the agent asks of every pod before it does anything.
            for (_, container) in pod.containers() {
                assert_eq!(pod.container_hash(&container.name).len(), 16);
            }
            assert!(!pod.hostname().is_empty() && pod.hostname().len() <= 63);
            let _ = (pod.needs_sandbox(), pod.to_pod());
            let again = StaticPod::from_bytes(bytes, origin).unwrap();
            assert_eq!(again, pod, "the same bytes are the same pod");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
