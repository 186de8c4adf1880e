//! Whatever a Pod asks for, by manifest or from the API server, no worker of the agent crashes over it, and once it is
//! not wanted any more nothing of it is left.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let outcomes = kubeboot::agent::trial::run(bytes);
    assert!(outcomes.crashes.is_empty(), "{:#?}", outcomes.crashes);
    assert!(outcomes.ended, "{outcomes:#?}");
});
