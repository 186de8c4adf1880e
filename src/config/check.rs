//! `config validate` and `config migrate`: every document of a file, whichever command it is for.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use super::error::ConfigError;
use super::flags::Flags;
use super::join::{self, JoinFlags};
use super::kinds;
use super::load::{self, HostDefaults, Input};
use super::report::{Part, Report};
use super::reset::{self, ResetFlags};
use super::upgrade::{self, UpgradeFlags};
use super::v1beta3;
use crate::yaml::Position;

/// Checks every document of `text`, the file `name`, as strictly as it can be: what a run only warns of because kubeadm
/// does is an error here. Returns the warnings that are left; old versions of the API are warned of unless
/// `allow_deprecated` is set. No machine is asked.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn validate(name: &Path, text: &str, allow_deprecated: bool) -> Result<Vec<String>, ConfigError> {
    checked(name, text, allow_deprecated).map(|(_, warnings)| warnings)
}

/// The documents of `text` in the newest versions of their kinds, and the warnings. Only what is written is there: no
/// default is filled in, so that those of tomorrow still apply.
///
/// # Errors
/// As [`validate`].
pub fn migrate(name: &Path, text: &str) -> Result<(Vec<Value>, Vec<String>), ConfigError> {
    checked(name, text, true)
}

fn checked(name: &Path, text: &str, allow_deprecated: bool) -> Result<(Vec<Value>, Vec<String>), ConfigError> {
    let mut report = Report::of(Some(name.to_owned()), Vec::new());
    kinds::read(text, kinds::ALL, &mut report);
    report.harden(kinds::TOLERATED);
    if allow_deprecated {
        report.silence(v1beta3::DEPRECATED);
    }
    let documents = kinds::newest(&report);
    if documents.is_empty() && !report.has_problems() {
        let message = "the file has no document; begin one with apiVersion: kubeadm.k8s.io/v1beta4 and kind: \
                       InitConfiguration or ClusterConfiguration";
        report.problem_at(Some(Position { line: 1, column: 1 }), "", message);
    }
    let has = |report: &Report, parts: &[Part]| parts.iter().any(|part| report.part(*part).is_some());
    if has(&report, load::PARTS) {
        let documents = load::decode(&mut report);
        load::resolve(documents, &nobody::<Flags>(), &mut report);
    }
    if has(&report, &[Part::Join]) {
        let (join, kubeboot) = join::decode(&mut report);
        join::resolve(&join, kubeboot, &nobody::<JoinFlags>(), &mut report);
    }
    if has(&report, &[Part::Reset]) {
        let wire = kinds::decode(Part::Reset, &mut report);
        reset::resolve(&wire, &ResetFlags::default(), &mut report);
    }
    if has(&report, &[Part::Upgrade]) {
        let wire = kinds::decode(Part::Upgrade, &mut report);
        upgrade::resolve(&wire, &UpgradeFlags::default(), &mut report);
    }
    let loaded = load::conclude(Some(()), false, report)?;
    Ok((documents, loaded.warnings))
}

/// A machine of no address in particular, so that a file is valid or not wherever it is looked at.
fn nobody<F: Default>() -> Input<F> {
    let address = Some(IpAddr::from([0, 0, 0, 0]));
    Input { file: None, flags: F::default(), host: HostDefaults { hostname: "node".into(), address } }
}
