//! `kubeboot etcd members`.

use std::process::ExitCode;

use serde::Serialize;

use super::{OUTPUT_API, Reach};
use crate::etcd::MemberRecord;
use crate::host::Paths;
use crate::ui::{self, Output};

/// List the members of etcd
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot etcd members\n  \
    kubeboot etcd members --endpoints 10.0.0.6:2379 -o json\n\n\
    Exit codes: 0 listed, 1 any error.")]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: &'static str,
    api_version: &'static str,
    /// Whether a quorum says so.
    agreed: bool,
    members: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// In hexadecimal.
    id: String,
    name: Option<String>,
    started: bool,
    learner: bool,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
}

/// Lists them.
pub async fn run(args: Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    let known = args.reach.known(paths)?;
    let found = known.cluster().members().await?;
    match args.output {
        Output::Text => ui::print(&text(&found.members))?,
        output => {
            let members = found.members.iter().map(row).collect();
            let kind = "EtcdMembers";
            ui::print_value(output, &Document { kind, api_version: OUTPUT_API, agreed: found.agreed, members })?;
        }
    }
    if !found.agreed {
        tracing::warn!("etcd has no quorum: these are the members as far as the one that was asked knows");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(member: &MemberRecord) -> Row {
    Row {
        id: member.id.to_string(),
        name: member.name.clone(),
        started: member.name.is_some(),
        learner: member.is_learner,
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
    }
}

fn text(members: &[MemberRecord]) -> String {
    let urls = |urls: &[String]| if urls.is_empty() { "-".to_owned() } else { urls.join(",") };
    let rows = members.iter().map(|member| {
        [
            member.id.to_string(),
            if member.name.is_some() { "started" } else { "unstarted" }.to_owned(),
            member.name.clone().unwrap_or_else(|| "-".to_owned()),
            if member.is_learner { "learner" } else { "voter" }.to_owned(),
            urls(&member.peer_urls),
            urls(&member.client_urls),
        ]
    });
    ui::table(["ID", "STATUS", "NAME", "ROLE", "PEER URLS", "CLIENT URLS"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::MemberId;

    #[test]
    fn members_are_shown_as_a_table() {
        let first = MemberRecord {
            id: MemberId(0x8e9e_05c5_2164_694d),
            name: Some("cp1".into()),
            peer_urls: vec!["https://10.0.0.5:2380".into()],
            client_urls: vec!["https://10.0.0.5:2379".into()],
            is_learner: false,
        };
        let peer_urls = vec!["https://10.0.0.6:2380".into()];
        let second = MemberRecord { id: MemberId(2), peer_urls, is_learner: true, ..MemberRecord::default() };
        insta::assert_snapshot!(text(&[first, second]), @r"
        ID                 STATUS      NAME   ROLE      PEER URLS               CLIENT URLS
        8e9e05c52164694d   started     cp1    voter     https://10.0.0.5:2380   https://10.0.0.5:2379
        2                  unstarted   -      learner   https://10.0.0.6:2380   -
        ");
    }
}
