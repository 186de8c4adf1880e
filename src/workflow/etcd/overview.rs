//! Every member, asked at the same time, and the cluster judged by its quorum: a member that does not answer is one line of
//! many, no error of the whole.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde::Serialize;

use super::cluster::{Asked, Cluster, ClusterError};
use crate::error::chain;
use crate::etcd::{Alarm, Connector, MemberId, MemberRecord, Status};

/// The key that is read to see a quorum agree: the one that `etcdctl endpoint health` reads. None is needed there.
const KEY: &[u8] = b"health";
/// Entries that a member may be behind its leader: with more than this etcd itself takes no writes for a while.
const LAG: u64 = 5000;

/// How the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// Every member answers, and nothing is wrong.
    Healthy,
    /// It has a quorum, and something is wrong.
    Degraded,
    /// No member reads what a quorum agrees to.
    NoQuorum,
}

/// What a cluster needs, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quorum {
    /// Members that vote.
    pub voters: usize,
    /// Those that answer.
    pub answering: usize,
    /// How many are needed.
    pub needed: usize,
}

/// A member, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    /// As the cluster knows it.
    pub record: MemberRecord,
    /// What it says of itself, or why it does not.
    pub status: Result<Status, String>,
    /// Why it does not read what a quorum agrees to; None where it does, or is a learner.
    pub unread: Option<String>,
}

/// The whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// How it is.
    pub health: Health,
    /// By which members.
    pub quorum: Quorum,
    /// All of them, by name.
    pub members: Vec<MemberState>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// The entry that the cluster has come to, as far as anyone says.
    pub index: u64,
}

impl MemberState {
    /// Its name, or its id until it has started.
    pub fn name(&self) -> String {
        self.record.name.clone().unwrap_or_else(|| self.record.id.to_string())
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.leader == Some(self.record.id))
    }

    /// Whether it answers, as a quorum agrees.
    pub fn serves(&self) -> bool {
        self.status.is_ok() && self.unread.is_none()
    }

    /// Entries that its data are behind `index`.
    pub fn lag(&self, index: u64) -> Option<u64> {
        Some(index.saturating_sub(self.status.as_ref().ok()?.applied_index))
    }
}

impl Overview {
    /// The member with this id.
    pub fn member(&self, id: MemberId) -> Option<&MemberState> {
        self.members.iter().find(|member| member.record.id == id)
    }

    /// In words: who answers, and whether that is enough.
    pub fn quorum_in_words(&self) -> String {
        let Quorum { voters, answering, needed } = self.quorum;
        let answer = if answering == 1 { "answers" } else { "answer" };
        let voters = format!("{answering} of {voters} {}", if voters == 1 { "voter" } else { "voters" });
        match self.health {
            Health::NoQuorum if answering >= needed => format!("quorum lost: {voters} {answer}, but none is in one"),
            Health::NoQuorum => format!("quorum lost: {voters} {answer}, {needed} needed"),
            _ => format!("quorum: {voters} {answer}, {needed} needed"),
        }
    }
}

/// Asks every member.
///
/// # Errors
/// [`ClusterError`], where no member says who the others are.
pub async fn overview(cluster: &Cluster<'_>) -> Result<Overview, ClusterError> {
    of_members(cluster.connector, &cluster.ask().await?).await
}

/// Asks every member that `asked` knows.
pub(super) async fn of_members(connector: &dyn Connector, asked: &Asked) -> Result<Overview, ClusterError> {
    let listed = asked.members().await?;
    let states = listed.members.into_iter().map(|record| async {
        // That one is known to answer there, whatever it tells others.
        let own = (record.id == asked.status.member).then(|| asked.endpoint.clone());
        let urls: Vec<String> = own.into_iter().chain(record.client_urls.iter().cloned()).collect();
        ask(connector, record, &urls).await
    });
    Ok(judge(join_all(states).await))
}

async fn ask(connector: &dyn Connector, record: MemberRecord, urls: &[String]) -> MemberState {
    let mut reason = "it has not started".to_owned();
    for url in urls {
        let Some(server) = connector.connect(url) else {
            reason = format!("{url} is not asked: members are asked by TLS");
            continue;
        };
        let status = match server.status().await {
            Ok(status) if status.member == record.id => status,
            Ok(status) => {
                reason = format!("member {} answers at {url}", status.member);
                continue;
            }
            Err(error) => {
                reason = chain(&error);
                continue;
            }
        };
        let unread = match (record.is_learner, status.leader) {
            (true, _) => None,
            (false, None) => Some("it knows no leader".to_owned()),
            (false, Some(_)) => server.read(KEY).await.err().map(|error| chain(&error)),
        };
        return MemberState { record, status: Ok(status), unread };
    }
    MemberState { record, status: Err(reason), unread: None }
}

/// What the answers come to.
pub fn judge(members: Vec<MemberState>) -> Overview {
    let voters = members.iter().filter(|member| !member.record.is_learner);
    let serving = voters.clone().filter(|member| member.serves()).count();
    let (voters, answering) = (voters.clone().count(), voters.filter(|member| member.status.is_ok()).count());
    let quorum = Quorum { voters, answering, needed: voters / 2 + 1 };
    let index = members.iter().filter_map(|member| Some(member.status.as_ref().ok()?.raft_index)).max();
    let index = index.unwrap_or_default();
    let mut problems: Vec<String> = members.iter().flat_map(|member| problems_of(member, index)).collect();
    problems.extend(alarms(&members).iter().map(|alarm| alarm_in_words(alarm, &members)));
    let health = match (serving, problems.is_empty()) {
        (0, _) => Health::NoQuorum,
        (_, true) => Health::Healthy,
        (_, false) => Health::Degraded,
    };
    Overview { health, quorum, members, problems, index }
}

/// The alarms of the cluster, each once.
pub fn alarms(members: &[MemberState]) -> BTreeSet<Alarm> {
    members.iter().filter_map(|member| member.status.as_ref().ok()).flat_map(Status::alarms).collect()
}

fn problems_of(member: &MemberState, index: u64) -> Vec<String> {
    let name = member.name();
    if let Err(reason) = &member.status {
        let urls = member.record.peer_urls.join(", ");
        return vec![match member.record.name {
            None => format!("member {name} ({urls}) has not started: start it, or remove it from the cluster"),
            Some(_) => format!("{name} does not answer: {reason}"),
        }];
    }
    let mut problems = Vec::new();
    if let Some(reason) = &member.unread {
        problems.push(format!("{name} reads nothing: {reason}"));
    }
    if let Some(lag) = member.lag(index).filter(|lag| *lag > LAG) {
        problems.push(format!("{name} is {lag} entries behind"));
    }
    problems
}

fn alarm_in_words(alarm: &Alarm, members: &[MemberState]) -> String {
    let member = members.iter().find(|member| member.record.id == alarm.member);
    let name = member.map_or_else(|| alarm.member.to_string(), MemberState::name);
    let words = match alarm.kind.as_str() {
        "NOSPACE" => {
            "its database is full, and the cluster takes no writes: compact it (`etcdctl compact`), defragment it \
             (`kubeboot etcd defrag`), and disarm the alarm (`etcdctl alarm disarm`)"
        }
        "CORRUPT" => "its data differ from the others': remove it from the cluster, and let it join again without data",
        _ => "see etcd's documentation",
    };
    format!("alarm {} of {name}: {words}", alarm.kind)
}
