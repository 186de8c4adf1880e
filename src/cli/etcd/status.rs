//! `kubeboot etcd status`.

use std::process::ExitCode;

use serde::Serialize;

use super::{OUTPUT_API, Reach, size};
use crate::etcd::Minor;
use crate::host::Paths;
use crate::ui::{self, Output};
use crate::workflow::etcd::overview::{Health, MemberState, Overview, Quorum, alarms, overview};

/// Exit code where there is a quorum, and something is wrong.
const DEGRADED: u8 = 2;

/// Show how etcd is: every member, and whether there is a quorum
///
/// Every member is asked at the same time, and reads a key as a quorum agrees to it. One that does not answer is shown with the
/// reason: the cluster serves as long as more than half of its voters do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd status\n  \
    kubeboot etcd status -o json\n  \
    kubeboot etcd status --endpoints 10.0.0.6:2379      # where the etcd of this node does not run\n\n\
    Exit codes: 0 every member answers and nothing is wrong; 2 there is a quorum, but a member does not answer, is behind, or \
    an alarm is raised; 1 the quorum is lost, or any other error.")]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    kind: &'static str,
    api_version: &'static str,
    health: Health,
    quorum: Quorum,
    alarms: Vec<Alarm>,
    problems: &'a [String],
    members: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Alarm {
    member: String,
    alarm: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// In hexadecimal.
    id: String,
    name: Option<String>,
    learner: bool,
    leader: bool,
    /// Whether it reads what a quorum agrees to; a learner reads nothing.
    serves: bool,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Said>,
}

/// What a member says of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    version: String,
    storage_version: Option<String>,
    db_size: u64,
    db_size_in_use: u64,
    db_size_quota: Option<u64>,
    revision: i64,
    leader: Option<String>,
    raft_term: u64,
    raft_index: u64,
    raft_applied_index: u64,
    lag: u64,
    errors: Vec<String>,
}

/// Shows it.
pub async fn run(args: Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    let known = args.reach.known(paths)?;
    let view = overview(&known.cluster()).await?;
    match args.output {
        Output::Text => ui::print(&text(&view))?,
        output => ui::print_value(output, &document(&view))?,
    }
    Ok(match view.health {
        Health::Healthy => ExitCode::SUCCESS,
        Health::Degraded => ExitCode::from(DEGRADED),
        Health::NoQuorum => ExitCode::FAILURE,
    })
}

fn text(view: &Overview) -> String {
    let headers =
        ["NAME", "ID", "ROLE", "VERSION", "STORAGE", "DB SIZE", "IN USE", "TERM", "INDEX", "APPLIED", "LAG", "STATE"];
    let rows = view.members.iter().map(|member| row_of_table(member, view.index));
    let mut text = format!("{}\n{}\n", ui::table(headers, rows), view.quorum_in_words());
    if !view.problems.is_empty() {
        text.push_str("\nProblems:\n");
        view.problems.iter().for_each(|problem| text.push_str(&format!("  {problem}\n")));
    }
    text
}

fn row_of_table(member: &MemberState, index: u64) -> [String; 12] {
    let none = || "-".to_owned();
    let role = match (member.is_leader(), member.record.is_learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "voter",
    };
    let state = match (&member.status, &member.unread) {
        (Err(_), _) if member.record.name.is_none() => "not started",
        (Err(_), _) => "no answer",
        (Ok(_), Some(_)) => "no quorum",
        (Ok(_), None) => "serves",
    };
    let said = member.status.as_ref().ok();
    let text = |value: Option<String>| value.unwrap_or_else(none);
    [
        member.record.name.clone().unwrap_or_else(none),
        member.record.id.to_string(),
        role.to_owned(),
        text(said.map(|it| it.version.clone())),
        text(said.and_then(|it| it.storage).map(|minor| minor.to_string())),
        text(said.map(|it| size(it.db_size))),
        text(said.map(|it| size(it.db_in_use))),
        text(said.map(|it| it.raft_term.to_string())),
        text(said.map(|it| it.raft_index.to_string())),
        text(said.map(|it| it.applied_index.to_string())),
        text(member.lag(index).map(|lag| lag.to_string())),
        state.to_owned(),
    ]
}

fn document(view: &Overview) -> Document<'_> {
    let alarm = |alarm: crate::etcd::Alarm| Alarm { member: alarm.member.to_string(), alarm: alarm.kind };
    Document {
        kind: "EtcdStatus",
        api_version: OUTPUT_API,
        health: view.health,
        quorum: view.quorum,
        alarms: alarms(&view.members).into_iter().map(alarm).collect(),
        problems: &view.problems,
        members: view.members.iter().map(|member| row(member, view.index)).collect(),
    }
}

fn row(member: &MemberState, index: u64) -> Row {
    let said = member.status.as_ref().ok().map(|it| Said {
        version: it.version.clone(),
        storage_version: it.storage.map(Minor::target),
        db_size: it.db_size,
        db_size_in_use: it.db_in_use,
        db_size_quota: it.db_quota,
        revision: it.revision,
        leader: it.leader.map(|id| id.to_string()),
        raft_term: it.raft_term,
        raft_index: it.raft_index,
        raft_applied_index: it.applied_index,
        lag: index.saturating_sub(it.applied_index),
        errors: it.errors.clone(),
    });
    Row {
        id: member.record.id.to_string(),
        name: member.record.name.clone(),
        learner: member.record.is_learner,
        leader: member.is_leader(),
        serves: member.serves() && !member.record.is_learner,
        client_urls: member.record.client_urls.clone(),
        reason: member.status.as_ref().err().or(member.unread.as_ref()).cloned(),
        status: said,
    }
}
