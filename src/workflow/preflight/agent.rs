//! Whether the node's own agent will take the settings that are written for it, found out before anything is written: by its
//! own parser, for a flag that it refuses would be found only by an agent that does not start.

use std::path::{Path, PathBuf};

use super::{Finding, PreflightError, Problem, Severity, Subject, is_ignored};
use crate::agent::options::{self, ConfigFile, Flags};
use crate::config::spec::{ClusterSpec, NodeAgent};
use crate::host::paths;
use crate::kubelet::files;

/// The check's name, which kubeadm has none like.
pub(super) const CHECK: &str = "KubeletExtraArgs";

pub(super) fn settings(s: &Subject) -> Vec<Problem> {
    s.cluster().map(problems).unwrap_or_default().into_iter().map(Problem::new).collect()
}

/// The same for a phase that is run by itself, or rehearsed. Returns what is ignored on demand.
///
/// # Errors
/// Everything that the agent would not start with.
pub fn check(spec: &ClusterSpec) -> Result<Vec<String>, PreflightError> {
    let problems = problems(spec);
    if is_ignored(&spec.node.ignore_preflight_errors, CHECK) || problems.is_empty() {
        return Ok(problems);
    }
    let finding = |message| Finding { check: CHECK.to_owned(), severity: Severity::Error, message };
    Err(PreflightError { errors: problems.into_iter().map(finding).collect() })
}

/// What the agent has against the flags, and, where they are fine, against all it is told together. A real kubelet knows its
/// own flags.
fn problems(spec: &ClusterSpec) -> Vec<String> {
    if spec.kubeboot.node_agent == NodeAgent::Kubelet {
        return vec![];
    }
    let given = spec.node.kubelet_extra_args.iter().map(|arg| (arg.name.as_str(), arg.value.as_str()));
    let mut flags = match Flags::read(given) {
        Ok(flags) => flags,
        Err(faults) => {
            let reported = |fault: options::OptionsError| format!("nodeRegistration.kubeletExtraArgs: {fault}");
            return faults.into_iter().map(reported).collect();
        }
    };
    // The unit names them.
    flags.node.kubeconfig.get_or_insert_with(|| Path::new(paths::KUBERNETES_DIR).join("kubelet.conf"));
    // What cannot be rendered is told by the phase that renders it.
    let Ok(rendered) = files::render(spec, false) else { return vec![] };
    let config = ConfigFile::main(PathBuf::from(paths::KUBELET_CONFIG), rendered.config);
    match options::resolve(&flags, &[config], &spec.node.name) {
        Ok(_) => vec![],
        Err(error) => vec![format!("the node agent would not start: {error}")],
    }
}
