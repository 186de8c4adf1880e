//! What upgrades have kept below /etc/kubernetes/tmp, and of etcd's data elsewhere: listed, and removed where nothing needs it any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::copy::size;
use super::journal::{About, BACKUP_PREFIX, DATA_PREFIX, Journal, State};
use super::manifest::{image, image_version, parse};
use super::order::{Order, OrderError};
use super::{UpgradeError, target};
use crate::host::Paths;
use crate::host::disk::Disk;
use crate::host::fs::{FsError, entries};
use crate::host::paths::TMP_DIR;
use crate::host::tree::{HostTree, NoRecord, Tree};
use crate::workflow::session::Session;
use crate::workflow::state::StateError;

/// What the names of directories begin with, and what those hold. A time follows.
const KINDS: &[(&str, Content)] = &[
    (BACKUP_PREFIX, Content::Manifests),
    (DATA_PREFIX, Content::EtcdData),
    ("kubeadm-kubelet-config-", Content::KubeletConfig),
];

/// The form of the time in the names, which is local.
const STAMP: &str = "%Y-%m-%d-%H-%M-%S";

/// What a directory of a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    /// The old manifests, certificates, settings and objects.
    Manifests,
    /// etcd's data.
    EtcdData,
    /// The kubelet's settings of a worker.
    KubeletConfig,
}

/// What only this program puts beside the manifests: one of an earlier kubeboot does not say what it is of.
const OURS: &[&str] = &[About::FILE, "files", "objects.json", "new"];

/// Who has made a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    /// This program: the journal names it, or what is in it is this program's.
    Kubeboot,
    /// kubeadm, or another program: it is only removed when that is asked for.
    Kubeadm,
}

/// One directory of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Where, as the node sees it.
    pub path: PathBuf,
    /// What is in it.
    pub content: Content,
    /// How much room it takes, in bytes.
    pub size: u64,
}

/// What one upgrade has kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// The time in the names of its directories.
    pub name: String,
    /// The same, where it is one.
    pub made: Option<Timestamp>,
    /// Who has made it.
    pub made_by: Maker,
    /// The command of the upgrade, where the backup says it.
    pub command: Option<String>,
    /// The version of the kube-apiserver in it.
    pub from: Option<String>,
    /// What followed: the version in the next backup, else the one that runs.
    pub to: Option<String>,
    /// How much room it takes, in bytes.
    pub size: u64,
    /// Its directories.
    pub parts: Vec<Part>,
    /// Whether `upgrade rollback` puts this one back.
    pub rollback: bool,
    /// Whether the journal of the last upgrade names it, so that it is never removed.
    pub needed: bool,
}

/// Why backups cannot be listed or removed.
#[derive(Debug, thiserror::Error)]
pub enum BackupsError {
    /// A file or directory.
    #[error(transparent)]
    File(#[from] FsError),
    /// kubeboot's own directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal of the last upgrade.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The order of an upgrade.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// An upgrade has not ended.
    #[error("an upgrade is under way ({command}): no backup is removed until it has ended")]
    UnderWay {
        /// Its command.
        command: String,
    },
}

/// Every backup below the root of `paths`, the newest first.
///
/// # Errors
/// What cannot be read; a journal that is damaged, because it says which backup is needed.
pub fn list(paths: &Paths) -> Result<Vec<Backup>, BackupsError> {
    let tree = HostTree::new(paths.clone(), NoRecord);
    let journal = Journal::read(&tree)?;
    let mut found: BTreeMap<String, Vec<Part>> = BTreeMap::new();
    for (name, path) in directories(paths)?.into_iter().chain(copies_elsewhere(paths)?) {
        let kind = KINDS.iter().find_map(|(prefix, content)| Some((name.strip_prefix(prefix)?, *content)));
        let Some((stamp, content)) = kind else { continue };
        let size = size(&paths.on_host(&path))?;
        found.entry(stamp.to_owned()).or_default().push(Part { path, content, size });
    }
    let mut all = Vec::new();
    for (name, mut parts) in found {
        parts.sort_by_key(|part| part.content);
        let is_named = |part: &Part| journal.as_ref().is_some_and(|journal| names(journal, &part.path));
        let needed = parts.iter().any(is_named);
        let is_ours = needed || parts.iter().any(|part| OURS.iter().any(|name| tree.exists(&part.path.join(name))));
        all.push(Backup {
            made: made(&name),
            made_by: if is_ours { Maker::Kubeboot } else { Maker::Kubeadm },
            command: command_of(&tree, &parts),
            from: version_in(&tree, &parts),
            to: None,
            size: parts.iter().map(|part| part.size).sum(),
            rollback: needed && journal.as_ref().is_some_and(|journal| journal.state != State::RolledBack),
            needed,
            name,
            parts,
        });
    }
    follow(&mut all, target::running_version(|path| super::current(&tree, path)).ok().flatten().map(|v| v.to_string()));
    all.reverse();
    Ok(all)
}

/// The directories right below kubeadm's, by name. Links are none.
fn directories(paths: &Paths) -> Result<Vec<(String, PathBuf)>, FsError> {
    let mut all = Vec::new();
    for path in entries(&paths.on_host(TMP_DIR))? {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| is_dir(&path)) {
            all.push((name.to_owned(), Path::new(TMP_DIR).join(name)));
        }
    }
    Ok(all)
}

/// The copies of etcd's data that are on etcd's own file system, by name: each backup says where its own is.
fn copies_elsewhere(paths: &Paths) -> Result<Vec<(String, PathBuf)>, FsError> {
    let tree = HostTree::new(paths.clone(), NoRecord);
    let mut all = Vec::new();
    for (name, path) in directories(paths)? {
        let Some(stamp) = name.strip_prefix(BACKUP_PREFIX) else { continue };
        let name = format!("{DATA_PREFIX}{stamp}");
        let said = about(&tree, &path).and_then(|about| about.etcd_copy);
        // It may be removed with all that is in it, so it is believed only where it is one by its name.
        let is_one =
            |path: &PathBuf| path.file_name().is_some_and(|file| *file == *name) && is_dir(&paths.on_host(path));
        all.extend(said.filter(is_one).map(|path| (name, path)));
    }
    Ok(all)
}

fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// Whether the journal of the last upgrade needs what is at `path`.
fn names(journal: &Journal, path: &Path) -> bool {
    let data = journal.etcd_data.as_ref().map(|data| data.to.as_path());
    let files = journal.files.iter().filter_map(|kept| kept.copy.as_deref());
    let all = [Some(journal.backup.as_path()), data, journal.objects.as_deref()].into_iter().flatten().chain(files);
    journal.etcd_copy() == path || all.into_iter().any(|needed| needed.starts_with(path))
}

fn made(stamp: &str) -> Option<Timestamp> {
    let time = DateTime::strptime(STAMP, stamp).ok()?;
    Some(time.to_zoned(TimeZone::system()).ok()?.timestamp())
}

/// The command that a backup says it is of.
fn command_of(tree: &dyn Tree, parts: &[Part]) -> Option<String> {
    let manifests = parts.iter().find(|part| part.content == Content::Manifests)?;
    about(tree, &manifests.path).map(|about| about.command)
}

/// What the backup in `dir` says of itself.
fn about(tree: &dyn Tree, dir: &Path) -> Option<About> {
    let content = tree.read(&dir.join(About::FILE)).ok()??;
    serde_json::from_slice(&content).ok()
}

/// The version of the kube-apiserver whose manifest was kept.
fn version_in(tree: &dyn Tree, parts: &[Part]) -> Option<String> {
    let manifests = parts.iter().find(|part| part.content == Content::Manifests)?;
    let path = manifests.path.join("kube-apiserver.yaml");
    let content = tree.read(&path).ok()??;
    image_version(image(&parse(&path, &content).ok()?))
}

/// Fills in what followed each of `all`, which are sorted by time.
fn follow(all: &mut [Backup], running: Option<String>) {
    let mut next = running;
    for backup in all.iter_mut().rev().filter(|backup| backup.from.is_some()) {
        backup.to = next.replace(backup.from.clone().unwrap_or_default());
    }
}

/// Which backups are to be removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// How many of the newest stay.
    pub keep: usize,
    /// Only those that are older than this go.
    pub older_than: Option<SignedDuration>,
    /// Whether kubeadm's go too.
    pub kubeadm: bool,
}

impl Choice {
    /// Those of `all`, the newest of which comes first, that go. What the last upgrade needs is never among them, and
    /// counts as one that stays; one whose age is not known only goes where age does not matter.
    pub fn of<'a>(&self, all: &'a [Backup], now: Timestamp) -> Vec<&'a Backup> {
        let eligible = all.iter().filter(|backup| self.kubeadm || backup.made_by == Maker::Kubeboot);
        let is_old = |backup: &&Backup| match (self.older_than, backup.made) {
            (None, _) => true,
            (Some(age), Some(made)) => made + age < now,
            (Some(_), None) => false,
        };
        eligible.skip(self.keep).filter(|backup| !backup.needed).filter(is_old).collect()
    }
}

/// Removes what `choice` is for; with `dry_run` only says what that is. The machine is locked meanwhile, so that no upgrade
/// begins.
///
/// # Errors
/// An upgrade that has not ended; what cannot be removed.
pub fn prune(paths: &Paths, disk: &mut dyn Disk, choice: Choice, dry_run: bool) -> Result<Vec<Backup>, BackupsError> {
    let _lock = if dry_run { None } else { Session::attach(paths)? };
    if let Some(order) = Order::read(paths)? {
        return Err(BackupsError::UnderWay { command: order.command });
    }
    let all = list(paths)?;
    let going: Vec<Backup> = choice.of(&all, Timestamp::now()).into_iter().cloned().collect();
    // The manifests last: beside them is said where etcd's data are.
    for part in going.iter().flat_map(|backup| backup.parts.iter().rev()).filter(|_| !dry_run) {
        disk.remove_tree(&paths.on_host(&part.path))?;
    }
    Ok(going)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disk::HostDisk;
    use crate::host::fs::{make_dirs, write_file};
    use crate::workflow::upgrade::journal::{DataCopy, JOURNAL};
    use crate::workflow::upgrade::plan::tests::manifest;

    fn put(paths: &Paths, path: &str, content: &[u8]) {
        let path = paths.on_host(path);
        make_dirs(path.parent().unwrap(), 0o700).unwrap();
        write_file(&path, content, 0o600).unwrap();
    }

    fn api_server(paths: &Paths, dir: &str, version: &str) {
        let content = manifest("kube-apiserver", &format!("r/kube-apiserver:{version}"));
        put(paths, &format!("{dir}/kube-apiserver.yaml"), &content);
    }

    /// A machine with three upgrades of ours, the last one's journal, and two backups of kubeadm's.
    fn machine() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        drop(crate::workflow::state::State::open_or_create(&paths).unwrap());
        let backup = |stamp: &str| format!("{TMP_DIR}/{BACKUP_PREFIX}{stamp}");
        let stamps = ["2026-01-01-10-00-00", "2026-02-01-10-00-00", "2026-03-01-10-00-00"];
        for (stamp, version) in stamps.into_iter().zip(["v1.35.1", "v1.36.2", "v1.36.3"]) {
            api_server(&paths, &backup(stamp), version);
        }
        put(
            &paths,
            &format!("{}/upgrade.json", backup(stamps[1])),
            b"{\"command\": \"kubeboot upgrade apply v1.36.3\"}",
        );
        // An earlier kubeboot's has other signs.
        put(&paths, &format!("{}/files/etc/kubernetes/admin.conf", backup(stamps[0])), b"x");
        api_server(&paths, "/etc/kubernetes/manifests", "v1.36.4");
        api_server(&paths, &backup("2025-06-01-10-00-00"), "v1.34.0");
        put(&paths, &format!("{TMP_DIR}/kubeadm-backup-etcd-2025-06-01-10-00-00/etcd/member/snap/db"), &[0; 5000]);
        put(&paths, &format!("{TMP_DIR}/kubeadm-backup-etcd-2026-03-01-10-00-00/etcd/snapshot.db"), b"x");
        put(&paths, &format!("{TMP_DIR}/kubeadm-kubelet-config-odd/config.yaml"), b"x");
        put(&paths, &format!("{TMP_DIR}/kubeadm-init-dryrun123/config.yaml"), b"x");
        std::os::unix::fs::symlink("/", paths.on_host(format!("{TMP_DIR}/{BACKUP_PREFIX}link"))).unwrap();
        let mut journal = Journal::new("t", "c", backup(stamps[2]).into());
        let copy = format!("{TMP_DIR}/kubeadm-backup-etcd-{}/etcd", stamps[2]);
        journal.etcd_data = Some(DataCopy { to: copy.into(), ..DataCopy::default() });
        journal.state = State::Done;
        journal.write(&mut HostTree::new(paths.clone(), NoRecord)).unwrap();
        (root, paths)
    }

    #[test]
    fn backups_are_listed_with_what_they_are_of_and_who_needs_them() {
        let (_root, paths) = machine();
        let all = list(&paths).unwrap();
        let short: Vec<_> = all
            .iter()
            .map(|one| {
                (one.name.as_str(), one.made_by, one.from.as_deref(), one.to.as_deref(), one.needed, one.rollback)
            })
            .collect();
        use Maker::{Kubeadm, Kubeboot};
        assert_eq!(
            short,
            [
                ("odd", Kubeadm, None, None, false, false),
                ("2026-03-01-10-00-00", Kubeboot, Some("v1.36.3"), Some("v1.36.4"), true, true),
                ("2026-02-01-10-00-00", Kubeboot, Some("v1.36.2"), Some("v1.36.3"), false, false),
                ("2026-01-01-10-00-00", Kubeboot, Some("v1.35.1"), Some("v1.36.2"), false, false),
                ("2025-06-01-10-00-00", Kubeadm, Some("v1.34.0"), Some("v1.35.1"), false, false),
            ]
        );
        assert_eq!(
            all[1].parts.iter().map(|part| part.content).collect::<Vec<_>>(),
            [Content::Manifests, Content::EtcdData]
        );
        assert!(all[4].size > 5000 && all[1].made.is_some() && all[0].made.is_none());
        let mut journal = Journal::read(&HostTree::new(paths.clone(), NoRecord)).unwrap().unwrap();
        journal.state = State::RolledBack;
        journal.write(&mut HostTree::new(paths.clone(), NoRecord)).unwrap();
        let one = &list(&paths).unwrap()[1];
        assert!(one.needed && !one.rollback, "what was put back may be put back again, and stays");
    }

    #[test]
    fn what_goes_is_neither_needed_nor_kubeadms_nor_too_young() {
        let (_root, paths) = machine();
        let all = list(&paths).unwrap();
        let now: Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
        let going = |keep, days: Option<i64>, kubeadm| {
            let older_than = days.map(|days| SignedDuration::from_hours(24 * days));
            let choice = Choice { keep, older_than, kubeadm };
            choice.of(&all, now).iter().map(|one| one.name[..7].to_owned()).collect::<Vec<_>>()
        };
        let all = Choice { kubeadm: true, ..Choice::default() }.of(&all, now).len();
        assert_eq!(all, 4, "everything but the one that is needed");
        assert_eq!(going(0, None, false), ["2026-02", "2026-01"]);
        assert_eq!(going(1, None, false), ["2026-02", "2026-01"], "the one that is needed counts as kept");
        assert_eq!(going(2, None, false), ["2026-01"]);
        assert_eq!(going(9, None, false), Vec::<String>::new());
        assert_eq!(going(0, Some(40), false), ["2026-01"]);
        assert_eq!(going(0, Some(40), true), ["2026-01", "2025-06"], "the age of the odd one is not known");
    }

    #[test]
    fn a_copy_on_etcds_own_file_system_is_listed_and_goes_with_its_backup() {
        let (_root, paths) = machine();
        let (newest, older) = ("2026-03-01-10-00-00", "2026-02-01-10-00-00");
        let says = |stamp: &str, copy: &str| {
            let text = format!("{{\"command\": \"c\", \"etcdCopy\": \"{copy}\"}}");
            put(&paths, &format!("{TMP_DIR}/{BACKUP_PREFIX}{stamp}/upgrade.json"), text.as_bytes());
        };
        let copy = format!("/var/lib/etcd/{DATA_PREFIX}{older}");
        put(&paths, &format!("{copy}/etcd/snapshot.db"), &[0; 9000]);
        says(older, &copy);
        let all = list(&paths).unwrap();
        let part = &all[2].parts[1];
        assert_eq!((part.path.as_path(), part.content), (Path::new(&copy), Content::EtcdData));
        assert!(part.size > 9000 && all[2].size > part.size);
        // Another directory is none, whatever a backup says.
        says(newest, "/var/lib/etcd");
        assert_eq!(list(&paths).unwrap()[1].parts.len(), 2);
        prune(&paths, &mut HostDisk, Choice::default(), false).unwrap();
        assert!(!paths.on_host(&copy).exists() && paths.on_host("/var/lib/etcd").exists());
    }

    #[test]
    fn a_dry_run_removes_nothing_and_pruning_leaves_what_rollback_needs() {
        let (_root, paths) = machine();
        let names = |all: &[Backup]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        let before = names(&list(&paths).unwrap());
        let choice = Choice { kubeadm: true, ..Choice::default() };
        let would = prune(&paths, &mut HostDisk, choice, true).unwrap();
        assert_eq!(names(&list(&paths).unwrap()), before);
        assert_eq!(would.len(), 4);
        prune(&paths, &mut HostDisk, choice, false).unwrap();
        assert_eq!(names(&list(&paths).unwrap()), ["2026-03-01-10-00-00"]);
        assert!(paths.on_host(format!("{TMP_DIR}/kubeadm-init-dryrun123")).exists(), "no backup, no affair of ours");
        assert!(paths.on_host(format!("{TMP_DIR}/{BACKUP_PREFIX}link")).is_symlink());
    }

    #[test]
    fn nothing_is_removed_while_the_journal_or_an_order_leaves_doubt() {
        let (_root, paths) = machine();
        put(&paths, JOURNAL, b"{");
        let choice = Choice { kubeadm: true, ..Choice::default() };
        assert!(matches!(prune(&paths, &mut HostDisk, choice, false), Err(BackupsError::Upgrade(_))));
        put(&paths, super::super::order::ORDER, b"{\"format\": 99}");
        assert!(matches!(prune(&paths, &mut HostDisk, choice, false), Err(BackupsError::Order(_))));
        assert!(paths.on_host(format!("{TMP_DIR}/{BACKUP_PREFIX}2026-01-01-10-00-00")).exists());
    }
}
