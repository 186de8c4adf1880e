//! Changes of the membership whose reply may be lost: after an error the members are read again, and a change that was
//! made is a success.

use super::{EtcdError, MemberId, MemberRecord, Membership, Reason};

/// Adds a learner with these peer URLs. One that is there, with exactly these and not started, is taken: an earlier try
/// has added it.
///
/// # Errors
/// That of the addition, where no such learner is there afterwards or the members cannot be listed.
pub async fn ensure_learner(etcd: &dyn Membership, peer_urls: &[String]) -> Result<MemberRecord, EtcdError> {
    let error = match etcd.add_learner(peer_urls).await {
        Ok(added) => return Ok(added),
        Err(error) => error,
    };
    let is_it = |one: &MemberRecord| one.is_learner && one.name.is_none() && one.peer_urls == peer_urls;
    after(etcd, error, |members| members.iter().find(|one| is_it(one)).cloned()).await
}

/// Lets a learner vote. One that votes already is a success.
///
/// # Errors
/// That of the promotion, where the member does not vote afterwards or the members cannot be listed.
pub async fn ensure_promoted(etcd: &dyn Membership, id: MemberId) -> Result<(), EtcdError> {
    let Err(error) = etcd.promote(id).await else { return Ok(()) };
    after(etcd, error, |members| members.iter().any(|one| one.id == id && !one.is_learner).then_some(())).await
}

/// Removes a member. One that is not there is a success.
///
/// # Errors
/// That of the removal, where the member is there afterwards or the members cannot be listed.
pub async fn ensure_removed(etcd: &dyn Membership, id: MemberId) -> Result<(), EtcdError> {
    match etcd.remove(id).await {
        Ok(()) => Ok(()),
        Err(error) if error.reason() == Some(Reason::NoSuchMember) => Ok(()),
        Err(error) => after(etcd, error, |members| members.iter().all(|one| one.id != id).then_some(())).await,
    }
}

/// What the members say about a change that failed with `error`, which it is if they say nothing.
async fn after<T>(
    etcd: &dyn Membership,
    error: EtcdError,
    made: impl FnOnce(&[MemberRecord]) -> Option<T>,
) -> Result<T, EtcdError> {
    etcd.list().await.ok().and_then(|members| made(&members)).ok_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::etcd::{FakeMembers, Fault};

    fn urls(text: &str) -> Vec<String> {
        vec![format!("https://{text}:2380")]
    }

    #[tokio::test]
    async fn a_member_joins_and_leaves() {
        let etcd = FakeMembers::default();
        let added = ensure_learner(&etcd, &urls("10.0.0.6")).await.unwrap();
        assert!(added.is_learner && added.name.is_none());
        etcd.start(added.id, "cp2");
        ensure_promoted(&etcd, added.id).await.unwrap();
        assert_eq!(etcd.list().await.unwrap().iter().filter(|one| !one.is_learner).count(), 2);
        ensure_removed(&etcd, added.id).await.unwrap();
        assert_eq!(etcd.list().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_change_whose_reply_is_lost_is_a_success() {
        let etcd = FakeMembers::default();
        etcd.fail("add_learner", Fault::After);
        let added = ensure_learner(&etcd, &urls("10.0.0.6")).await.unwrap();
        etcd.start(added.id, "cp2");
        etcd.fail("promote", Fault::After);
        ensure_promoted(&etcd, added.id).await.unwrap();
        ensure_promoted(&etcd, added.id).await.expect("it votes already");
        etcd.fail("remove", Fault::After);
        ensure_removed(&etcd, added.id).await.unwrap();
        ensure_removed(&etcd, added.id).await.expect("it has gone already");
        let calls = etcd.calls();
        assert_eq!(calls, ["add_learner", "list", "promote", "list", "promote", "list", "remove", "list", "remove"]);
    }

    #[tokio::test]
    async fn a_change_that_was_not_made_is_the_error_that_it_was() {
        let etcd = FakeMembers::default();
        let own = etcd.list().await.unwrap()[0].clone();
        let error = ensure_learner(&etcd, &own.peer_urls).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PeerUrlTaken), "a member that votes is not taken for the learner");
        let added = ensure_learner(&etcd, &urls("10.0.0.6")).await.unwrap();
        let error = ensure_promoted(&etcd, added.id).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::LearnerBehind));
        for call in ["add_learner", "promote", "remove"] {
            etcd.fail(call, Fault::Before);
        }
        let away = |error: &EtcdError| matches!(error, EtcdError::Unreachable { .. });
        assert!(away(&ensure_learner(&etcd, &urls("10.0.0.7")).await.unwrap_err()));
        assert!(away(&ensure_promoted(&etcd, added.id).await.unwrap_err()));
        assert!(away(&ensure_removed(&etcd, added.id).await.unwrap_err()));
        assert_eq!(etcd.list().await.unwrap().len(), 2, "the learner and the first one");
        // A reply that is lost, and then no answer at all: what was made is not known.
        etcd.fail("remove", Fault::After);
        etcd.fail("list", Fault::Before);
        assert!(away(&ensure_removed(&etcd, added.id).await.unwrap_err()));
    }

    #[tokio::test]
    async fn a_learner_that_has_started_is_another_one() {
        let etcd = FakeMembers::default();
        let added = ensure_learner(&etcd, &urls("10.0.0.6")).await.unwrap();
        assert_eq!(ensure_learner(&etcd, &urls("10.0.0.6")).await.unwrap(), added);
        etcd.start(added.id, "cp2");
        let error = ensure_learner(&etcd, &urls("10.0.0.6")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PeerUrlTaken));
    }
}
