//! The lease of a component's leader.

use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease as ApiLease;
use serde_json::{Value, json};

use super::check::{UNANSWERED, words};
use super::{Sight, Subject};
use crate::agent::control::report::StateReport;
use crate::agent::pod::election::Election;
use crate::agent::pod::{Origin, Place, StaticPod};
use crate::cluster::object::Object;
use crate::host::facts::hostname;
use crate::workflow::upgrade::target::file;

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    holder: String,
    renewed: Option<Timestamp>,
}

impl Lease {
    fn of(value: &Value) -> Self {
        let spec = &value["spec"];
        Self {
            holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
            renewed: spec["renewTime"].as_str().and_then(|text| text.parse().ok()),
        }
    }
}

/// Somebody leads: the lease was renewed since the component's present process began, or, where another machine's holds it, whose
/// clock may be another, since the first look.
pub fn held<'a>(subject: &'a Subject<'a>) -> BoxFuture<'a, Sight> {
    async move {
        if !subject.parts.api_answered {
            return Sight::Skipped(UNANSWERED.into());
        }
        let election = match election(subject) {
            None => return Sight::Skipped("it elects no leader".into()),
            Some(Err(why)) => return Sight::Skipped(why),
            Some(Ok(election)) => election,
        };
        let metadata = json!({"metadata": {"name": election.lease, "namespace": election.namespace}});
        let Ok(lease) = serde_json::from_value::<ApiLease>(metadata) else {
            return Sight::Skipped("there is no such object".into());
        };
        let api = subject.parts.api;
        let lease = match api.cluster.get(api.site, &Object::new(&lease)).await {
            Ok(Some(value)) => Lease::of(&value),
            Ok(None) => return Sight::NotYet("there is no lease".into()),
            Err(cause) => return Sight::NotYet(words(&*cause)),
        };
        let first = subject.first.get_or_init(|| lease.clone());
        judge(&lease, first, started(subject).await, &hostname())
    }
    .boxed()
}

/// Pure.
fn judge(lease: &Lease, first: &Lease, started: Option<Timestamp>, host: &str) -> Sight {
    if lease.holder.is_empty() {
        return Sight::NotYet("no one holds the lease".into());
    }
    let is_ours = lease.holder.rsplit_once('_').is_some_and(|(name, _)| name == host);
    let is_renewed = match started.filter(|_| is_ours) {
        Some(started) => lease.renewed > Some(started),
        None => lease.renewed > first.renewed,
    };
    match is_renewed {
        true => Sight::Passed,
        false => Sight::NotYet(format!("{} has not renewed the lease", lease.holder)),
    }
}

fn election(subject: &Subject<'_>) -> Option<Result<Election, String>> {
    let file = file(subject.component);
    let origin = Origin { node_name: "node", place: Place::File(&file), seen: Timestamp::now() };
    let pod = StaticPod::from_bytes(subject.manifest, origin).ok()?;
    let (_, container) = pod.containers().find(|(is_init, _)| !is_init)?;
    pod.election(&container.name)
}

/// When the process of the component began, as the agent knows it.
async fn started(subject: &Subject<'_>) -> Option<Timestamp> {
    let report = subject.parts.health.watch().await.ok()?.next().await?;
    let of = |pod: &&crate::agent::control::report::PodReport| pod.component.as_deref() == Some(subject.component);
    let pods = report.pods.iter().filter(of).filter(|pod| !pod.terminating);
    let started = pods.flat_map(|pod| &pod.containers).filter_map(|container| match container.state {
        StateReport::Running { started_at } => Some(started_at),
        _ => None,
    });
    started.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_once_it_is_renewed_after_the_restart() {
        let at = |second: i64| Timestamp::from_second(second).ok();
        let lease = |holder: &str, renewed: i64| Lease { holder: holder.into(), renewed: at(renewed) };
        let not_yet = |why: &str| Sight::NotYet(why.into());
        for (what, now, first, started, expected) in [
            ("free", lease("", 20), lease("cp1_a", 9), at(10), not_yet("no one holds the lease")),
            (
                "its predecessor's",
                lease("cp1_a", 9),
                lease("cp1_a", 9),
                at(10),
                not_yet("cp1_a has not renewed the lease"),
            ),
            ("its own", lease("cp1_b", 11), lease("cp1_b", 11), at(10), Sight::Passed),
            (
                "another node's, seen once",
                lease("cp2_c", 99),
                lease("cp2_c", 99),
                at(10),
                not_yet("cp2_c has not renewed the lease"),
            ),
            ("another node's, whose clock is behind", lease("cp2_c", 5), lease("cp2_c", 3), at(10), Sight::Passed),
            ("its own, of an unknown start", lease("cp1_b", 12), lease("cp1_b", 11), None, Sight::Passed),
        ] {
            assert_eq!(judge(&now, &first, started, "cp1"), expected, "{what}");
        }
    }
}
