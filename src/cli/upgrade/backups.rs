//! `kubeboot upgrade backups`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::cli::Globals;
use crate::config::GoDuration;
use crate::host::disk::HostDisk;
use crate::ui::{self, Output};
use crate::workflow::upgrade::backups::{Backup, Choice, Content, Maker, list, prune};

/// How many stay where nothing else is said.
const KEEP: usize = 3;

/// Show what earlier upgrades have kept, or remove what nothing needs any more
///
/// An upgrade keeps the old manifests, certificates and settings, and etcd's data where etcd is replaced, in directories below
/// /etc/kubernetes/tmp; etcd's data on their own file system where they have one. `upgrade rollback` puts those of the last
/// upgrade back; earlier ones are only kept.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  kubeboot upgrade backups
  kubeboot upgrade backups prune --keep 1 --dry-run
  kubeboot upgrade backups prune --older-than 30d

Exit codes: 0 shown or removed, 1 any error."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
    /// How to print: text, json or yaml.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Remove backups that nothing needs any more.
    ///
    /// What the last upgrade needs for its rollback is never removed, nor anything while an upgrade is under way.
    #[command(after_help = "Exit codes: 0 removed (or nothing to remove), 1 any error.")]
    Prune {
        /// How many of the newest backups stay [default: 3; 0 with --older-than]
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
        /// Only those that are older: 30d, 12h.
        #[arg(long, value_name = "DURATION")]
        older_than: Option<String>,
        /// Those of kubeadm too.
        #[arg(long)]
        kubeadm: bool,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// How to print: text, json or yaml.
        #[arg(short, long, default_value = "text", value_name = "FORMAT")]
        output: Output,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Backups<'a> {
    kind: &'static str,
    api_version: &'static str,
    backups: &'a [Backup],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned<'a> {
    kind: &'static str,
    api_version: &'static str,
    dry_run: bool,
    size: u64,
    removed: &'a [Backup],
}

/// Runs the command.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    let Some(Sub::Prune { keep, older_than, kubeadm, dry_run, output }) = args.command else {
        let all = list(&paths)?;
        match args.output {
            Output::Text => ui::print(&table(&all))?,
            output => ui::print_value(
                output,
                &Backups { kind: "UpgradeBackups", api_version: super::OUTPUT_API, backups: &all },
            )?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    let older_than = older_than.map(|text| age(&text).with_context(|| format!("--older-than {text}"))).transpose()?;
    let keep = keep.unwrap_or(if older_than.is_some() { 0 } else { KEEP });
    let removed = prune(&paths, &mut HostDisk, Choice { keep, older_than, kubeadm }, dry_run)?;
    let size = removed.iter().map(|backup| backup.size).sum();
    match output {
        Output::Text => ui::print(&words(&removed, dry_run))?,
        output => {
            let value = Pruned {
                kind: "UpgradeBackupsPruned",
                api_version: super::OUTPUT_API,
                dry_run,
                size,
                removed: &removed,
            };
            ui::print_value(output, &value)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A duration as Go writes it, or a number of days: `30d`.
fn age(text: &str) -> anyhow::Result<SignedDuration> {
    if let Some(days) = text.strip_suffix('d') {
        let days: u32 = days.parse().context("expected a number of days such as 30d, or a duration such as 12h")?;
        return Ok(SignedDuration::from_hours(24 * i64::from(days)));
    }
    let duration = text.parse::<GoDuration>()?.to_std().context("a negative duration")?;
    Ok(SignedDuration::try_from(duration)?)
}

fn table(all: &[Backup]) -> String {
    if all.is_empty() {
        return "No backups: no upgrade has kept anything below /etc/kubernetes/tmp.\n".to_owned();
    }
    let rows = all.iter().map(|one| {
        let unknown = || "-".to_owned();
        [
            made(one),
            one.from.clone().unwrap_or_else(unknown),
            one.to.clone().unwrap_or_else(unknown),
            contents(one),
            size(one.size),
            if one.rollback { "yes" } else { "no" }.to_owned(),
            made_by(one),
        ]
    });
    ui::table(["MADE", "FROM", "TO", "HOLDS", "SIZE", "ROLLBACK", "MADE BY"], rows)
}

fn made(one: &Backup) -> String {
    one.made.map_or_else(|| one.name.clone(), |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn made_by(one: &Backup) -> String {
    match (&one.command, one.made_by) {
        (Some(command), _) => command.clone(),
        (None, Maker::Kubeboot) => "kubeboot".to_owned(),
        (None, Maker::Kubeadm) => "kubeadm".to_owned(),
    }
}

fn contents(one: &Backup) -> String {
    let name = |content: Content| match content {
        Content::Manifests => "manifests",
        Content::EtcdData => "etcd's data",
        Content::KubeletConfig => "kubelet settings",
    };
    one.parts.iter().map(|part| name(part.content)).collect::<Vec<_>>().join(", ")
}

fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        MIB.. => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ => format!("{} KiB", bytes.div_ceil(1 << 10)),
    }
}

fn words(removed: &[Backup], dry_run: bool) -> String {
    if removed.is_empty() {
        return "Nothing to remove.\n".to_owned();
    }
    let verb = if dry_run { "would remove" } else { "removed" };
    let parts = removed.iter().flat_map(|backup| &backup.parts);
    let lines: String = parts.map(|part| format!("{verb} {} ({})\n", part.path.display(), size(part.size))).collect();
    let freed = size(removed.iter().map(|backup| backup.size).sum());
    format!("{lines}{} {freed}\n", if dry_run { "would free" } else { "freed" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::upgrade::backups::Part;

    fn backup(name: &str, bytes: u64) -> Backup {
        let part =
            Part { path: format!("/etc/kubernetes/tmp/{name}").into(), content: Content::Manifests, size: bytes };
        Backup {
            name: name.into(),
            made: "2026-03-01T10:00:00Z".parse().ok().filter(|_| name.starts_with('2')),
            made_by: Maker::Kubeboot,
            command: Some("kubeboot upgrade apply v1.36.3".to_owned()).filter(|_| name.starts_with('2')),
            from: Some("v1.36.2".into()),
            to: None,
            size: bytes,
            parts: vec![part],
            rollback: true,
            needed: true,
        }
    }

    #[test]
    fn backups_are_shown_as_a_table() {
        insta::assert_snapshot!(table(&[backup("2026", 5_000), backup("odd", 12 << 20)]), @r"
        MADE                      FROM      TO   HOLDS       SIZE       ROLLBACK   MADE BY
        2026-03-01 10:00:00 UTC   v1.36.2   -    manifests   5 KiB      yes        kubeboot upgrade apply v1.36.3
        odd                       v1.36.2   -    manifests   12.0 MiB   yes        kubeboot
        ");
        assert!(table(&[]).starts_with("No backups"));
    }

    #[test]
    fn what_was_removed_is_named_with_the_room_it_gives() {
        assert_eq!(words(&[], false), "Nothing to remove.\n");
        let text = words(&[backup("a", 2048), backup("b", 1024)], true);
        assert_eq!(text.lines().last(), Some("would free 3 KiB"));
        assert!(words(&[backup("a", 2048)], false).starts_with("removed /etc/kubernetes/tmp/a (2 KiB)\n"));
    }

    #[test]
    fn an_age_is_a_number_of_days_or_what_go_reads() {
        assert_eq!(age("30d").unwrap(), SignedDuration::from_hours(720));
        assert_eq!(age("1h30m").unwrap(), SignedDuration::from_mins(90));
        for wrong in ["", "d", "-1d", "soon", "-1h"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
