//! Whatever is in a configuration file, reading it ends, with a spec or with an error that says something; and what is
//! valid stays valid, and the same, when it is migrated and when it is printed.

#![no_main]

use std::net::IpAddr;
use std::path::Path;

use kubeboot::config::{self, Flags, HostDefaults, Input, JoinFlags, ResetFlags, UpgradeFlags, print};
use kubeboot::yaml;
use libfuzzer_sys::fuzz_target;

fn input<F: Default>(text: &str) -> Input<F> {
    let host = HostDefaults { hostname: "node".into(), address: Some(IpAddr::from([10, 0, 0, 5])) };
    Input { file: Some(("c.yaml".into(), text.into())), flags: F::default(), host }
}

fn stream(documents: &[serde_json::Value]) -> String {
    documents.iter().map(|document| yaml::to_string(document).unwrap()).collect::<Vec<_>>().join("---\n")
}

fuzz_target!(|text: &str| {
    let join = config::load_join(&input::<JoinFlags>(text));
    let reset = config::load_reset(&input::<ResetFlags>(text));
    let upgrade = config::load_upgrade(&input::<UpgradeFlags>(text));
    for error in [join.err(), reset.err(), upgrade.err()].into_iter().flatten() {
        assert!(!error.problems.is_empty() && !error.to_string().is_empty());
    }
    if let Ok(loaded) = config::load(&input::<Flags>(text)) {
        let spec = loaded.spec;
        let printed = stream(&[print::init_configuration(&spec), print::cluster_configuration(&spec)]);
        let again = config::load(&input::<Flags>(&printed)).unwrap_or_else(|error| panic!("{error}\n{printed}")).spec;
        assert_eq!(print::cluster_configuration(&again), print::cluster_configuration(&spec));
    }
    if let Ok((documents, _)) = config::migrate(Path::new("c.yaml"), text) {
        let migrated = stream(&documents);
        let (again, _) = config::migrate(Path::new("c.yaml"), &migrated).unwrap_or_else(|e| panic!("{e}\n{migrated}"));
        assert_eq!(again, documents);
    }
});
