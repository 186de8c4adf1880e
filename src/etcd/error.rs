//! Why etcd did not do as it was asked, and what is to be done about it.

use std::path::PathBuf;

use tonic::{Code, Status};

use super::Member;
use super::rpc::Cause;
use crate::error::deepest;

/// Why etcd did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// It cannot be asked.
    #[error("etcd at {address} cannot be reached")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What answers there shows a certificate that is not taken.
    #[error(
        "the server at {address} is not trusted: its certificate has to be valid, for this address, and signed by the \
         authority in {}", ca.display()
    )]
    NotTrusted {
        /// Where.
        address: String,
        /// The authority, on the host.
        ca: PathBuf,
        /// What is wrong with the certificate.
        #[source]
        source: Box<rustls::Error>,
    },
    /// It does not take the client's certificate.
    #[error(
        "etcd at {address} does not take the client certificate {}: it has to be valid, and signed by the authority that \
         this etcd trusts; `kubeboot certs check-expiration` and `kubeboot certs renew` are for that", certificate.display()
    )]
    NotTaken {
        /// Where.
        address: String,
        /// The certificate, on the host.
        certificate: PathBuf,
        /// What it said.
        #[source]
        source: Box<rustls::Error>,
    },
    /// It says no.
    #[error("etcd at {address} refuses to {what}: {message}{}", advice(message, *reason))]
    Refused {
        /// Where.
        address: String,
        /// What it was asked.
        what: &'static str,
        /// What it said.
        message: String,
        /// Why, as far as something follows from that.
        reason: Reason,
    },
}

/// Why a member says no. etcd's own client tells these apart by their texts too: several have one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A downgrade that was asked for earlier has not ended.
    DowngradeInProgress,
    /// No downgrade has begun that could be cancelled.
    NoDowngrade,
    /// It does not go back to this version: one minor version at a time.
    DowngradeTarget,
    /// There is no member of this id.
    NoSuchMember,
    /// The learner has not caught up with the leader.
    LearnerBehind,
    /// The member votes already.
    NotALearner,
    /// There are as many learners as there may be, which is one.
    TooManyLearners,
    /// A member with this peer URL is there.
    PeerUrlTaken,
    /// The change would lose the quorum: members have not started.
    TooFewStarted,
    /// The change would lose the quorum: members are not connected.
    Unhealthy,
    /// The member that was asked is a learner, which reads and writes nothing.
    IsLearner,
    /// It knows no leader, or too few members answered it; also while a leader is being elected.
    NoQuorum,
    /// The database is full.
    NoSpace,
    /// This etcd does not know the question.
    Unsupported,
    /// Anything else.
    Other,
}

/// Texts of etcd without the prefix, what they mean, and what is to be done. The first that a message begins with counts.
const REASONS: &[(&str, Reason, &str)] = &[
    ("cluster has a downgrade job in progress", Reason::DowngradeInProgress, "; wait until it has ended, or cancel it"),
    ("no inflight downgrade job", Reason::NoDowngrade, ""),
    ("invalid downgrade target version", Reason::DowngradeTarget, "; it goes back by one minor version at a time"),
    ("member not found", Reason::NoSuchMember, "; it may have been removed: list the members again"),
    (
        "can only promote a learner member which is in sync with leader",
        Reason::LearnerBehind,
        "; it has to run, and to catch up with the leader first",
    ),
    ("can only promote a learner member", Reason::NotALearner, ", and this one votes already"),
    ("too many learner members in cluster", Reason::TooManyLearners, "; promote or remove the one that is there first"),
    ("Peer URLs already exists", Reason::PeerUrlTaken, "; remove the member that has this peer URL first"),
    (
        "re-configuration failed due to not enough started members",
        Reason::TooFewStarted,
        "; start the members that do not run first, or remove them",
    ),
    ("unhealthy cluster", Reason::Unhealthy, "; every voting member has to be connected for a while first"),
    ("rpc not supported for learner", Reason::IsLearner, "; ask a member that votes, or promote this one"),
    ("no leader", Reason::NoQuorum, "; more than half of the members that vote have to run"),
    ("leader changed", Reason::NoQuorum, "; ask again"),
    ("request timed out", Reason::NoQuorum, "; more than half of the members that vote have to run and be connected"),
    (
        "mvcc: database space exceeded",
        Reason::NoSpace,
        "; compact and defragment it and disarm the alarm, or give it a larger quota",
    ),
];

/// What etcd's own errors begin with.
const PREFIX: &str = "etcdserver: ";

fn row(message: &str) -> Option<&'static (&'static str, Reason, &'static str)> {
    REASONS.iter().find(|(text, ..)| message.starts_with(text))
}

/// What is to be done, as the end of a sentence.
fn advice(message: &str, reason: Reason) -> &'static str {
    match (row(message), reason) {
        (Some((.., advice)), _) => advice,
        (None, Reason::Unsupported) => "; its version is too old for that",
        (None, _) => "",
    }
}

/// Why no one answered: the innermost cause alone, for each one around it repeats what is in it.
fn cause(status: &Status) -> Cause {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), deepest).into()
}

impl EtcdError {
    /// What a status means that `member` answered when asked to do `what`, or that stands for no answer.
    pub(super) fn of(member: &Member, what: &'static str, status: &Status) -> Self {
        let said = status.message().strip_prefix(PREFIX);
        let is_away = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => said.is_none(),
            // The connection broke: what etcd says itself has no cause on this side.
            Code::Unknown | Code::Internal | Code::Cancelled => std::error::Error::source(status).is_some(),
            _ => false,
        };
        if is_away {
            return member.unreachable(cause(status));
        }
        let message = said.unwrap_or(status.message()).to_owned();
        let reason = match (row(&message), status.code()) {
            (Some((_, reason, _)), _) => *reason,
            (None, Code::Unimplemented) => Reason::Unsupported,
            (None, _) => Reason::Other,
        };
        Self::Refused { address: member.address(), what, message, reason }
    }

    /// Why it was refused; None where it was not, or where that is not known.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member::of(&crate::testing::spec(), &crate::host::Paths::default())
    }

    #[test]
    fn every_text_of_etcd_has_its_reason_and_says_what_is_to_be_done() {
        for (text, reason, advice) in REASONS {
            let error = EtcdError::of(&member(), "do it", &Status::failed_precondition(format!("{PREFIX}{text}")));
            assert_eq!(error.reason(), Some(*reason), "{text}");
            assert_eq!(error.to_string(), format!("etcd at 127.0.0.1:2379 refuses to do it: {text}{advice}"));
        }
    }

    #[test]
    fn a_member_that_answers_without_a_quorum_is_reached_and_one_that_does_not_answer_is_not() {
        let of = |status: Status| EtcdError::of(&member(), "do it", &status);
        for text in ["no leader", "request timed out, possibly due to connection lost", "leader changed"] {
            let error = of(Status::unavailable(format!("{PREFIX}{text}")));
            assert_eq!(error.reason(), Some(Reason::NoQuorum), "{text}");
        }
        assert_eq!(of(Status::unimplemented("unknown method X")).reason(), Some(Reason::Unsupported));
        assert_eq!(of(Status::internal("what is this")).reason(), Some(Reason::Other));
        for status in [Status::unavailable("connection refused"), Status::deadline_exceeded("late")] {
            assert!(matches!(of(status), EtcdError::Unreachable { .. }));
        }
        let broken = Status::from_error(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
        assert!(matches!(of(broken), EtcdError::Unreachable { .. }));
    }
}
