//! Whether a lease is the one that a run of a container has left. Pure.

use jiff::Timestamp;
use serde_json::Value;

use crate::agent::runs::Run;

/// Why a lease stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Left {
    /// It is free already: who held it has released it.
    #[error("it has no holder")]
    Free,
    /// Its holder is on another machine, or names none.
    #[error("its holder is not of this host")]
    OtherHost,
    /// It was acquired before the run began, or after it ended.
    #[error("it was not acquired while the container ran")]
    OtherRun,
    /// It was renewed after the run ended.
    #[error("it was renewed after the container had ended")]
    Renewed,
    /// It is held by what this cannot read.
    #[error("it does not say when it was acquired and renewed")]
    Timeless,
    /// The API server chooses the holder (`spec.strategy`, coordinated leader election).
    #[error("its holder is chosen by the API server")]
    Coordinated,
}

/// Gives the lease free if nothing but `run` can have acquired and renewed it last. The identity of a holder is
/// `HOST_UUID` for both components (`os.Hostname()` and a UUID), and the process is not known by that UUID: so that the
/// times decide which run on the host it was. They are of one clock, as both are of one machine.
pub fn free(lease: &mut Value, run: &Run) -> Result<(), Left> {
    let spec = &lease["spec"];
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    let moment = |field: &str| spec[field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    if holder.is_empty() {
        return Err(Left::Free);
    }
    if spec["strategy"].as_str().is_some_and(|strategy| !strategy.is_empty()) {
        return Err(Left::Coordinated);
    }
    if holder.rsplit_once('_').is_none_or(|(host, uuid)| host != run.host || uuid.is_empty()) {
        return Err(Left::OtherHost);
    }
    let (Some(acquired), Some(renewed)) = (moment("acquireTime"), moment("renewTime")) else {
        return Err(Left::Timeless);
    };
    if acquired < run.started || acquired > run.ended {
        return Err(Left::OtherRun);
    }
    if renewed > run.ended {
        return Err(Left::Renewed);
    }
    lease["spec"]["holderIdentity"] = Value::from("");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::runs::tests::run;

    #[test]
    fn only_the_lease_that_the_run_has_left_is_given_free() {
        let run = run("m", 100, 200);
        let at = |second: i64| Timestamp::from_second(second).unwrap().to_string();
        let lease = |holder: &str, acquired: i64, renewed: i64| {
            json!({"metadata": {"resourceVersion": "7"}, "spec": {
                "holderIdentity": holder, "acquireTime": at(acquired), "renewTime": at(renewed),
                "leaseDurationSeconds": 15, "leaseTransitions": 3, "unknown": [1]}})
        };
        let coordinated = |strategy: &str| {
            let mut lease = lease("cp1_u", 110, 190);
            lease["spec"]["strategy"] = json!(strategy);
            lease
        };
        let timeless = json!({"spec": {"holderIdentity": "cp1_u", "acquireTime": at(110)}});
        for (what, mut lease, expected) in [
            ("its own", lease("cp1_u", 110, 190), Ok(())),
            ("its own, to the moment", lease("cp1_u", 100, 200), Ok(())),
            ("free already", lease("", 110, 190), Err(Left::Free)),
            ("nothing in it", json!({}), Err(Left::Free)),
            ("another node's", lease("cp2_u", 110, 190), Err(Left::OtherHost)),
            ("of a host whose name begins alike", lease("cp1_a_u", 110, 190), Err(Left::OtherHost)),
            ("a holder that names no host", lease("cp1", 110, 190), Err(Left::OtherHost)),
            ("a holder without a UUID", lease("cp1_", 110, 190), Err(Left::OtherHost)),
            ("an earlier run's", lease("cp1_u", 99, 190), Err(Left::OtherRun)),
            ("acquired since", lease("cp1_v", 201, 202), Err(Left::OtherRun)),
            ("renewed since", lease("cp1_v", 110, 201), Err(Left::Renewed)),
            ("without times", timeless, Err(Left::Timeless)),
            ("the API server's choice", coordinated("OldestEmulationVersion"), Err(Left::Coordinated)),
            ("nobody's strategy", coordinated(""), Ok(())),
        ] {
            let before = lease.clone();
            assert_eq!(free(&mut lease, &run), expected, "{what}");
            let mut after = before.clone();
            if expected.is_ok() {
                after["spec"]["holderIdentity"] = json!("");
            }
            assert_eq!(lease, after, "{what}: nothing else is changed");
        }
    }
}
