//! The unit `kubelet.service` and kubeadm's drop-in for it, under the names every tool expects.

use std::path::{Path, PathBuf};

use askama::Template;

use crate::config::spec::{ClusterSpec, NodeAgent};
use crate::host::fs::{FsError, Written};
use crate::host::paths::{KUBELET_CONFIG, KUBELET_DROP_IN, KUBELET_FLAGS_ENV, KUBELET_UNIT, KUBERNETES_DIR};
use crate::host::tree::Tree;
use crate::kubelet::service::Program;
use crate::runtime::endpoint::Endpoint;

/// The two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFiles {
    /// `/etc/systemd/system/kubelet.service`.
    pub unit: String,
    /// `/etc/systemd/system/kubelet.service.d/10-kubeadm.conf`.
    pub drop_in: String,
}

/// A unit that cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// systemd starts no program whose path has a quote, a backslash or a control character in it, or is not absolute.
    #[error("{path:?} cannot stand in a unit file: it must be an absolute path without quotes and backslashes")]
    Program {
        /// The program.
        path: PathBuf,
    },
    /// The Docker address, for the same reason.
    #[error("dockerHost {address:?} cannot stand in a unit file: it has a control character in it")]
    DockerHost {
        /// The address.
        address: String,
    },
    /// A template could not be filled in.
    #[error("cannot fill in the template of the unit")]
    Template(#[source] askama::Error),
    /// A file that cannot be written.
    #[error("cannot write the unit")]
    File(#[source] FsError),
}

/// What the agent's environment says to the C library: its threads, which idle, share one heap instead of holding a part of
/// one each. That is a megabyte and a half of the twenty an agent has.
pub const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

fn arenas() -> String {
    let (name, value) = ARENAS;
    format!("{name}={value}")
}

#[derive(Template)]
#[template(path = "kubelet.service")]
struct UnitTemplate<'a> {
    program: &'a str,
    arenas: &'a str,
    embedded: bool,
}

#[derive(Template)]
#[template(path = "10-kubeadm.conf")]
struct DropInTemplate<'a> {
    program: &'a str,
    embedded: bool,
    docker_host: Option<&'a str>,
    bootstrap_kubeconfig: &'a str,
    kubeconfig: &'a str,
    config: &'a str,
    flags_env: &'a str,
}

/// Makes the unit and the drop-in. `program` is this program where the agent is embedded, else the kubelet.
///
/// # Errors
/// A program whose path no unit can hold.
pub fn render(spec: &ClusterSpec, program: &Path) -> Result<UnitFiles, UnitError> {
    let docker_host = Endpoint::of(spec).docker_host();
    render_for(&Program { path: program.to_owned(), agent: spec.kubeboot.node_agent, docker_host })
}

/// The same for any program.
///
/// # Errors
/// A program whose path no unit can hold.
pub fn render_for(program: &Program) -> Result<UnitFiles, UnitError> {
    let Program { path, agent, docker_host } = program;
    let program = nameable(path)?;
    let embedded = *agent == NodeAgent::Embedded;
    let docker_host = settable(docker_host.as_deref().filter(|_| embedded))?;
    let drop_in = DropInTemplate {
        program,
        embedded,
        docker_host,
        bootstrap_kubeconfig: &format!("{KUBERNETES_DIR}/bootstrap-kubelet.conf"),
        kubeconfig: &format!("{KUBERNETES_DIR}/kubelet.conf"),
        config: KUBELET_CONFIG,
        flags_env: KUBELET_FLAGS_ENV,
    };
    let unit = UnitTemplate { program, arenas: &arenas(), embedded }.render().map_err(UnitError::Template)?;
    let drop_in = drop_in.render().map_err(UnitError::Template)?;
    // Templates lose their last line break.
    Ok(UnitFiles { unit: unit + "\n", drop_in: drop_in + "\n" })
}

/// `program`, if a unit can name it.
fn nameable(program: &Path) -> Result<&str, UnitError> {
    let refused = |c: char| c.is_control() || matches!(c, '"' | '\'' | '\\');
    let text = program.to_str().filter(|text| program.is_absolute() && !text.contains(refused));
    text.ok_or_else(|| UnitError::Program { path: program.to_owned() })
}

/// `address`, if a unit can set it.
fn settable(address: Option<&str>) -> Result<Option<&str>, UnitError> {
    match address {
        Some(address) if address.chars().any(char::is_control) => {
            Err(UnitError::DockerHost { address: address.to_owned() })
        }
        address => Ok(address),
    }
}

#[derive(Template)]
#[template(path = "90-kubeboot.conf")]
struct AdoptedTemplate<'a> {
    program: &'a str,
    arenas: &'a str,
    docker_host: Option<&'a str>,
}

/// Makes the drop-in that puts the agent into the unit of a kubelet that kubeboot has not installed.
///
/// # Errors
/// As [`render`].
pub fn render_adopted(program: &Path, docker_host: Option<&str>) -> Result<String, UnitError> {
    let drop_in =
        AdoptedTemplate { program: nameable(program)?, arenas: &arenas(), docker_host: settable(docker_host)? };
    Ok(drop_in.render().map_err(UnitError::Template)? + "\n")
}

/// Makes the files and writes them, 0644.
///
/// # Errors
/// Those of [`render`], and what the file system refuses.
pub fn write(
    spec: &ClusterSpec,
    program: &Path,
    tree: &mut dyn Tree,
) -> Result<Vec<(&'static str, Written)>, UnitError> {
    let files = render(spec, program)?;
    let mut written = Vec::new();
    for (path, content) in [(KUBELET_UNIT, &files.unit), (KUBELET_DROP_IN, &files.drop_in)] {
        let outcome = tree.write(Path::new(path), content.as_bytes(), 0o644).map_err(UnitError::File)?;
        written.push((path, outcome));
    }
    Ok(written)
}

/// Filters of the templates.
mod filters {
    /// Escapes what means something to systemd inside double quotes: backslash, quote, and `%` of specifiers.
    #[askama::filter_fn]
    pub fn systemd(value: impl std::fmt::Display, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
    }

    /// A word of a command line: in quotes where it has to be.
    #[askama::filter_fn]
    pub fn systemd_word(value: impl std::fmt::Display, _: &dyn askama::Values) -> askama::Result<String> {
        let text = value.to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
        if text.chars().all(plain) {
            return Ok(text);
        }
        Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    fn exec_start(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect()
    }

    const ARGS: &str = "$KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS";

    #[test]
    fn the_embedded_agent_is_a_word_of_this_program() {
        let files = render(&spec(), Path::new("/usr/local/bin/kubeboot")).unwrap();
        assert_eq!(exec_start(&files.unit), ["/usr/local/bin/kubeboot agent"]);
        assert_eq!(exec_start(&files.drop_in), ["", &format!("/usr/local/bin/kubeboot agent {ARGS}")]);
        assert!(files.unit.contains("\nType=notify\nEnvironment=MALLOC_ARENA_MAX=1\n"));
        assert!(is_hardened(&files.unit) && files.unit.ends_with("\n\n[Install]\nWantedBy=multi-user.target\n"));
    }

    #[test]
    fn a_real_kubelet_is_run_as_its_own_packages_run_it() {
        let mut spec = spec();
        spec.kubeboot.node_agent = NodeAgent::Kubelet;
        spec.kubeboot.docker_host = Some("unix:///x".into());
        let files = render(&spec, Path::new("/usr/bin/kubelet")).unwrap();
        assert_eq!(exec_start(&files.unit), ["/usr/bin/kubelet"]);
        assert!(!files.unit.contains("Environment"), "a kubelet has no such heap");
        assert_eq!(exec_start(&files.drop_in), ["", &format!("/usr/bin/kubelet {ARGS}")]);
        assert!(!files.drop_in.contains("DOCKER_HOST"));
        assert!(!is_hardened(&files.unit) && !is_hardened(&files.drop_in), "a kubelet needs more than the agent");
    }

    /// Whether a unit takes from its program what the agent does not need, and watches it.
    fn is_hardened(unit: &str) -> bool {
        unit.contains("\nWatchdogSec=120\n") && unit.contains("\nNoNewPrivileges=yes\n")
    }

    #[test]
    fn the_agent_loses_nothing_that_it_needs() {
        let unit = render(&spec(), Path::new("/usr/bin/kubeboot")).unwrap().unit;
        // Each of these gives a program mounts of its own, and then no container runtime sees what is mounted for pods.
        for own_mounts in [
            "ProtectSystem",
            "ProtectHome",
            "ProtectKernelTunables",
            "ProtectKernelModules",
            "ProtectKernelLogs",
            "ProtectControlGroups",
            "ProtectProc",
            "ProcSubset",
            "PrivateTmp",
            "PrivateDevices",
            "PrivateMounts",
            "MountFlags",
            "ReadOnlyPaths",
            "InaccessiblePaths",
            "RootDirectory",
            "PrivateNetwork",
            "PrivateUsers",
        ] {
            assert!(!unit.contains(&format!("\n{own_mounts}=")), "{own_mounts}");
        }
        assert!(!unit.contains("RestrictSUIDSGID"), "volumes of a pod with fsGroup have the set-group-ID bit");
        let dropped: Vec<&str> = unit.lines().filter(|line| line.starts_with("CapabilityBoundingSet=~")).collect();
        let dropped: Vec<&str> = dropped.iter().flat_map(|line| line.split(['~', ' ']).skip(1)).collect();
        for needed in [
            "CAP_SYS_ADMIN",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_DAC_READ_SEARCH",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_SYS_PTRACE",
            "CAP_SYS_RESOURCE",
            "CAP_NET_BIND_SERVICE",
            // Without it Linux 6.18 attaches no filter to a listener, which replacing an API server beside the old one takes.
            "CAP_NET_ADMIN",
        ] {
            assert!(!dropped.contains(&needed), "{needed}");
        }
        assert!(dropped.contains(&"CAP_SYS_TIME") && dropped.contains(&"CAP_SYS_MODULE"), "{dropped:?}");
    }

    #[test]
    fn a_path_that_means_something_to_systemd_is_quoted() {
        let files = render(&spec(), Path::new("/opt/my 50% tools/kubeboot")).unwrap();
        assert_eq!(exec_start(&files.unit), ["\"/opt/my 50%% tools/kubeboot\" agent"]);
    }

    #[test]
    fn the_engines_address_reaches_the_agent_through_its_environment() {
        let mut spec = spec();
        spec.kubeboot.docker_host = Some("unix:///run/my docker.sock".into());
        let files = render(&spec, Path::new("/usr/bin/kubeboot")).unwrap();
        assert!(files.drop_in.contains("\nEnvironment=\"DOCKER_HOST=unix:///run/my docker.sock\"\n"));
    }

    #[test]
    fn a_kubelet_s_own_unit_is_given_the_agent_by_a_drop_in() {
        let drop_in = render_adopted(Path::new("/usr/bin/kubeboot"), Some("unix:///d")).unwrap();
        // The kubelet's own flags may name another runtime.
        assert_eq!(exec_start(&drop_in), ["", &format!("/usr/bin/kubeboot agent --docker-host=unix:///d {ARGS}")]);
        assert!(is_hardened(&drop_in));
        assert!(render_adopted(Path::new("/usr/bin/kubeboot"), Some("a\nb")).is_err());
    }

    #[test]
    fn a_program_that_no_unit_can_name_is_refused() {
        for path in ["kubeboot", "/a\nb", "/a\"b", "/a'b", "/a\\b"] {
            assert!(matches!(render(&spec(), Path::new(path)), Err(UnitError::Program { .. })), "{path:?}");
        }
    }
}
