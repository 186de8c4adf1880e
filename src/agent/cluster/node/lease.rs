//! The Node's lease: by its renewal the cluster knows that the node lives.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::sleep;
use tracing::debug;

use super::updater::{SessionError, call};
use crate::agent::apiserver::registered::NodeIdentity;
use crate::agent::backoff::{Steps, jittered};
use crate::agent::cluster::Parts;
use crate::error::chain;
use crate::host::clock;

/// Where leases of nodes are.
const NAMESPACE: &str = "kube-node-lease";
/// A lease is renewed four times while it lasts.
const RENEWALS: u32 = 4;
/// By how much the interval differs from one time to the next.
const JITTER: f64 = 0.04;
/// How long to wait after a failure: the kubelet's numbers.
const RETRY: Steps = Steps { initial: Duration::from_millis(200), cap: Duration::from_secs(7) };

/// Renews the lease until the agent ends.
pub async fn keep(parts: Parts) {
    let api = Arc::clone(&parts.api);
    let seconds = parts.options.node.lease_seconds;
    let interval = clock::seconds(i64::from(seconds.max(1))).checked_div(RENEWALS).unwrap_or_default();
    let (mut identities, mut clients) = (parts.node.identities(), api.clients());
    let (mut failures, mut current) = (0_u32, None);
    loop {
        let (identity, client) = (identities.borrow_and_update().clone(), clients.borrow_and_update().clone());
        let mut pause = interval;
        if let (Some(identity), Some(client)) = (&identity, client) {
            let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
            match renew(&leases, current.take(), identity, seconds).await {
                Ok(renewed) => {
                    current = Some(renewed);
                    failures = 0;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    debug!(error = chain(&error), failures, "cannot renew the lease");
                    pause = RETRY.after(failures).min(interval);
                }
            }
        }
        tokio::select! {
            () = sleep(jittered(pause, JITTER)) => {}
            changed = identities.changed() => if changed.is_err() { return },
            changed = clients.changed() => if changed.is_err() { return },
        }
    }
}

/// Renews the lease as it was last seen; one that has been changed or deleted meanwhile is looked at again.
async fn renew(
    leases: &Api<Lease>,
    current: Option<Lease>,
    identity: &NodeIdentity,
    seconds: i32,
) -> Result<Lease, SessionError> {
    let params = PostParams::default();
    if let Some(current) = current {
        let next = renewed(Some(current), identity, seconds, Timestamp::now());
        match call("renew the lease", leases.replace(&identity.name, &params, &next)).await {
            Err(error) if error.is_conflict() => {}
            other => return other,
        }
    }
    let there = call("read the lease", leases.get_opt(&identity.name)).await?;
    let is_new = there.is_none();
    let next = renewed(there, identity, seconds, Timestamp::now());
    match is_new {
        true => call("make the lease", leases.create(&params, &next)).await,
        false => call("renew the lease", leases.replace(&identity.name, &params, &next)).await,
    }
}

/// The lease as it is written now. It belongs to the Node, and goes with it.
fn renewed(current: Option<Lease>, identity: &NodeIdentity, seconds: i32, now: Timestamp) -> Lease {
    let mut lease = current.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(identity.name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    lease.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: identity.name.clone(),
        uid: identity.uid.clone(),
        ..OwnerReference::default()
    }]);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(identity.name.clone()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(now)),
        ..lease.spec.unwrap_or_default()
    });
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_in_place_and_follows_a_new_node() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let node = |uid: &str| NodeIdentity { name: "cp1".into(), uid: uid.into() };
        let first = renewed(None, &node("1"), 40, at(1));
        let mut seen = first.clone();
        seen.metadata.resource_version = Some("7".into());
        seen.spec.as_mut().unwrap().lease_transitions = Some(3);
        let next = renewed(Some(seen), &node("2"), 40, at(11));
        assert_eq!(next.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(next.metadata.owner_references.unwrap()[0].uid, "2");
        let spec = next.spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("cp1"), Some(40)));
        assert_eq!((spec.renew_time, spec.lease_transitions), (Some(MicroTime(at(11))), Some(3)));
    }
}
