//! `ResetConfiguration` and the flags of `reset`, into a [`ResetSpec`].

use super::cluster::{skip_phases, warn_of_unused};
use super::error::ConfigError;
use super::flags::{self, FlagRow, beside, has, row, text};
use super::kinds;
use super::load::{Input, Loaded, conclude, report_on};
use super::names;
use super::network::or;
use super::node::{cri_socket, ignore_list, timeouts};
use super::report::{Part, Report};
use super::spec::{ResetSpec, UnmountFlag};
use super::wire::ResetConfiguration;

/// The flags of `reset` as the user gave them; one that was not given is None, empty or false.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResetFlags {
    /// `--cert-dir`.
    pub cert_dir: Option<String>,
    /// `--cleanup-tmp-dir`.
    pub cleanup_tmp_dir: bool,
    /// `--cri-socket`.
    pub cri_socket: Option<String>,
    /// `--force`.
    pub force: bool,
    /// `--ignore-preflight-errors`; may go with `--config`, which it adds to.
    pub ignore_preflight_errors: Vec<String>,
    /// `--skip-phases`; may go with `--config`, whose `skipPhases` it replaces.
    pub skip_phases: Vec<String>,
}

const FLAGS: &[FlagRow<ResetFlags>] = &[
    row("--cert-dir", "certificatesDir", |flags| has(&flags.cert_dir)),
    row("--cleanup-tmp-dir", "cleanupTmpDir", |flags| flags.cleanup_tmp_dir),
    row("--cri-socket", "criSocket", |flags| has(&flags.cri_socket)),
    row("--force", "force", |flags| flags.force),
    beside("--ignore-preflight-errors", "ignorePreflightErrors", |flags| !flags.ignore_preflight_errors.is_empty()),
    beside("--skip-phases", "skipPhases", |flags| !flags.skip_phases.is_empty()),
];

/// Reads, defaults and checks the configuration of `reset`. No file is opened, the machine is not asked.
///
/// # Errors
/// Everything that is wrong with the file and the flags, at once.
pub fn load_reset(input: &Input<ResetFlags>) -> Result<Loaded<ResetSpec>, ConfigError> {
    let mut report = report_on(input, FLAGS);
    let flags = &input.flags;
    let reset: ResetConfiguration = match &input.file {
        Some((_, text)) => {
            flags::refuse(FLAGS, flags, &mut report);
            kinds::read(text, &[Part::Reset], &mut report);
            kinds::demand(Part::Reset, &mut report);
            kinds::decode(Part::Reset, &mut report)
        }
        None => ResetConfiguration {
            certificates_dir: text(&flags.cert_dir),
            cleanup_tmp_dir: flags.cleanup_tmp_dir,
            cri_socket: text(&flags.cri_socket),
            force: flags.force,
            ..ResetConfiguration::default()
        },
    };
    let spec = resolve(&reset, flags, &mut report);
    conclude(spec, reset.dry_run, report)
}

/// `unmountFlags`' words.
pub(super) const UNMOUNT_FLAGS: &[(&str, UnmountFlag)] = &[
    ("MNT_FORCE", UnmountFlag::Force),
    ("MNT_DETACH", UnmountFlag::Detach),
    ("MNT_EXPIRE", UnmountFlag::Expire),
    ("UMOUNT_NOFOLLOW", UnmountFlag::NoFollow),
];

/// None only where the report has a problem.
pub(super) fn resolve(reset: &ResetConfiguration, flags: &ResetFlags, report: &mut Report) -> Option<ResetSpec> {
    let mut unmount_flags = Vec::new();
    for (index, word) in reset.unmount_flags.iter().enumerate() {
        match UNMOUNT_FLAGS.iter().find(|(name, _)| name == word) {
            Some((_, flag)) => unmount_flags.push(*flag),
            None => {
                let known = UNMOUNT_FLAGS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                report.problem(Part::Reset, &format!("unmountFlags[{index}]"), format!("{word:?} is none of {known}"));
            }
        }
    }
    let certificates_dir = names::absolute(or(&reset.certificates_dir, "/etc/kubernetes/pki"));
    let certificates_dir = report.check(Part::Reset, "certificatesDir", certificates_dir);
    let ignored = (Part::Reset, "ignorePreflightErrors");
    let spec = ResetSpec {
        certificates_dir: certificates_dir.unwrap_or_default(),
        cleanup_tmp_dir: reset.cleanup_tmp_dir,
        cri_socket: cri_socket((Part::Reset, "criSocket"), &reset.cri_socket, report),
        force: reset.force,
        ignore_preflight_errors: ignore_list(
            ignored,
            &reset.ignore_preflight_errors,
            &flags.ignore_preflight_errors,
            report,
        ),
        skip_phases: skip_phases(&reset.skip_phases, &flags.skip_phases),
        unmount_flags,
        timeouts: timeouts(Part::Reset, &reset.timeouts, report),
    };
    warn_of_unused(report);
    Some(spec)
}
