//! What a container needs on the machine before the runtime makes it: volumes, sub-paths, and the files the agent
//! manages for it. All of it blocks, and a network mount may hang, so it runs off the runtime's threads.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, FileKeySelector, VolumeMount};

use super::dns;
use super::env;
use super::hosts;
use crate::agent::container::dns::Notice;
use crate::agent::container::env::Sources;
use crate::agent::container::env_file;
use crate::agent::container::hosts::Names;
use crate::agent::objects::Objects;
use crate::agent::options::AgentOptions;
use crate::agent::pod::{StaticPod, container_path};
use crate::agent::volumes::{self, Inputs, Slot, VolumeError};
use crate::host::fs::{FsError, write_file};
use crate::runtime::Env;
use crate::runtime::{Mount, Propagation, UserRange};

const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";
/// Who may read the files that the agent manages.
const FILE_MODE: u32 = 0o644;

/// What is ready.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The environment.
    pub env: Env,
    /// Where each of the container's mounts comes from, in their order.
    pub sources: Vec<PathBuf>,
    /// The mounts the agent adds.
    pub managed: Vec<Mount>,
    /// The pod's own users; None for the machine's.
    pub users: Option<UserRange>,
    /// What is reported to the user.
    pub notices: Vec<Notice>,
}

/// Why a container cannot be made yet.
#[derive(Debug)]
pub enum PrepareError {
    /// A volume is not as it should be (`FailedMount`).
    Volume(VolumeError),
    /// The manifest asks for what cannot be had (`CreateContainerConfigError`).
    Config(String),
    /// A file of the agent's own.
    File(FsError),
}

impl From<VolumeError> for PrepareError {
    fn from(error: VolumeError) -> Self {
        Self::Volume(error)
    }
}

impl From<FsError> for PrepareError {
    fn from(error: FsError) -> Self {
        Self::File(error)
    }
}

/// Makes everything ready for one instance of a container.
pub fn prepare(
    pod: &StaticPod,
    container: &Container,
    attempt: u32,
    inputs: &Inputs<'_>,
    options: &AgentOptions,
) -> Result<Prepared, PrepareError> {
    let Inputs { facts, objects } = *inputs;
    let root = &options.root_dir;
    volumes::claim(root, &pod.uid)?;
    let users = own_users(pod, root)?;
    volumes::prepare(pod, root, inputs)?;
    let read = |of: &FileKeySelector| {
        let volume = pod.spec.volumes.iter().flatten().find(|volume| volume.name == of.volume_name);
        let dir = volume.and_then(|volume| volumes::path(volume, root, &pod.uid));
        let dir = dir.ok_or_else(|| format!("there is no volume {}", of.volume_name))?;
        env_file::read(&dir, &of.path, &of.key)
    };
    let env =
        env::environment(pod, container, &Sources { facts, read: &read, objects }).map_err(PrepareError::Config)?;
    let sources = sources(pod, container, root, &env)?;
    let mut managed = Vec::new();
    if let Some(path) = container.termination_message_path.as_deref().filter(|path| !path.is_empty()) {
        let file = volumes::termination_file(root, &pod.uid, &container.name, attempt);
        volumes::make_termination_file(&file)?;
        managed.push(mount(&file, &container_path(path), false));
    }
    let dir = volumes::pod_dir(root, &pod.uid);
    let mut notices: Vec<Notice> = left_out(container, objects).into_iter().collect();
    if !mounts_at(container, HOSTS) {
        let names = Names {
            ip: facts.pod_ip.as_deref(),
            cluster_domain: options.cluster_domain.as_deref(),
            machine: &fs::read_to_string(HOSTS).unwrap_or_default(),
        };
        if let Some(text) = hosts::content(pod, &names) {
            let file = dir.join("etc-hosts");
            rewrite(&file, &text)?;
            managed.push(mount(&file, HOSTS, false));
        }
    }
    if !mounts_at(container, RESOLVER) {
        let machine = machine_resolver(options, &mut notices);
        let (resolver, reported) = dns::resolver(pod, &machine, options);
        notices.extend(reported);
        let file = dir.join("resolv.conf");
        rewrite(&file, &resolver.to_string())?;
        let read_only = container.security_context.as_ref().and_then(|context| context.read_only_root_filesystem);
        managed.push(mount(&file, RESOLVER, read_only.unwrap_or(false)));
    }
    Ok(Prepared { env, sources, managed, users, notices })
}

/// The users that the pod's sandbox was made with. A container that is to have its own is never made with the machine's.
fn own_users(pod: &StaticPod, root: &Path) -> Result<Option<UserRange>, PrepareError> {
    if pod.spec.host_users != Some(false) {
        return Ok(None);
    }
    let missing =
        "hostUsers: false: the pod's sandbox was made with the machine's users; remove the pod and add it again";
    match volumes::users::of(root, &pod.uid)? {
        None => Err(PrepareError::Config(missing.to_owned())),
        users => Ok(users),
    }
}

/// Keys that are no variables' names are skipped, as the kubelet does, and not in silence.
fn left_out(container: &Container, objects: &Objects) -> Option<Notice> {
    let names = env::left_out(container, objects);
    let message = format!("keys that can be no environment variable's name are skipped: {}", names.join(", "));
    (!names.is_empty()).then_some(Notice { reason: "InvalidEnvironmentVariableNames", message })
}

/// Without the machine's resolver file there is nothing to inherit; the pod runs all the same.
fn machine_resolver(options: &AgentOptions, notices: &mut Vec<Notice>) -> String {
    let path = options.resolv_conf.as_deref().unwrap_or(Path::new(RESOLVER));
    fs::read_to_string(path).unwrap_or_else(|error| {
        let message = format!("cannot read {}: {error}; nothing is taken from it", path.display());
        notices.push(Notice { reason: "DNSConfigForming", message });
        String::new()
    })
}

fn mount(file: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        host_path: file.display().to_string(),
        container_path: target.to_owned(),
        read_only,
        recursive_read_only: false,
        propagation: Propagation::Private,
    }
}

/// Whether a container brings its own.
fn mounts_at(container: &Container, path: &str) -> bool {
    container
        .volume_mounts
        .iter()
        .flatten()
        .any(|mount| container_path(&mount.mount_path).trim_end_matches('/') == path)
}

/// Writes a file in place: containers have it mounted, and a new file would leave them the old one.
fn rewrite(path: &Path, text: &str) -> Result<(), FsError> {
    let fail = |e| FsError::new("write", path, e);
    let Ok(meta) = fs::metadata(path) else { return write_file(path, text.as_bytes(), FILE_MODE).map(drop) };
    if meta.permissions().mode() & 0o7777 != FILE_MODE {
        fs::set_permissions(path, fs::Permissions::from_mode(FILE_MODE)).map_err(fail)?;
    }
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).map_err(fail)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(fail)
}

/// The sources of a container's mounts, sub-paths made and checked.
fn sources(
    pod: &StaticPod,
    container: &Container,
    root: &Path,
    env: &[(String, Vec<u8>)],
) -> Result<Vec<PathBuf>, PrepareError> {
    let known: env::Known = env.iter().cloned().collect();
    let find = |name: &str| pod.spec.volumes.iter().flatten().find(|volume| volume.name == name);
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    mounts
        .map(|(index, mount)| {
            let base = find(&mount.name).and_then(|volume| volumes::path(volume, root, &pod.uid)).unwrap_or_default();
            match wanted_sub_path(mount, &known).map_err(PrepareError::Config)?.as_str() {
                "" => Ok(base),
                sub => {
                    let slot = Slot { root, uid: &pod.uid, container: &container.name, index };
                    Ok(volumes::sub_path(&mount.name, &base, sub, slot)?)
                }
            }
        })
        .collect()
}

/// `subPath`, or `subPathExpr` with its variables: all of them must be set, or another container's data would be
/// mounted.
fn wanted_sub_path(mount: &VolumeMount, known: &env::Known) -> Result<String, String> {
    let Some(text) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(mount.sub_path.clone().unwrap_or_default());
    };
    let mut missing = Vec::new();
    let path = env::expand_with(text, &mut |name| match known.get(name) {
        Some(value) if !value.is_empty() => Some(value.clone()),
        _ => {
            missing.push(name.to_owned());
            None
        }
    });
    let wrong = |problem: String| Err(format!("subPathExpr {text} of {}: {problem}", mount.mount_path));
    let path = match path.and_then(env::utf8) {
        Ok(path) => path,
        Err(problem) => return wrong(problem),
    };
    if !missing.is_empty() {
        return wrong(format!("not set or empty: {}", missing.join(", ")));
    }
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return wrong(format!("{path} is not a relative path without '..'"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::container::env::Facts;
    use crate::agent::pod::tests::{pod, pod_with};

    fn prepared(pod: &StaticPod, root: &Path, ip: Option<&str>) -> Result<Prepared, PrepareError> {
        let mut options = AgentOptions::new("node1");
        options.root_dir = root.to_owned();
        options.cluster_dns = vec!["10.96.0.10".into()];
        let facts = Facts { pod_ip: ip.map(str::to_owned), ..Facts::default() };
        let inputs = Inputs { facts: &facts, objects: &Objects::default() };
        prepare(pod, &pod.spec.containers[0], 3, &inputs, &options)
    }

    fn targets(prepared: &Prepared) -> Vec<&str> {
        prepared.managed.iter().map(|mount| mount.container_path.as_str()).collect()
    }

    #[test]
    fn a_container_gets_its_managed_files_and_keeps_those_it_mounts_itself() {
        let root = tempfile::tempdir().unwrap();
        let plain = pod("");
        let ready = prepared(&plain, root.path(), Some("10.0.0.7")).unwrap();
        assert_eq!(targets(&ready), ["/dev/termination-log", HOSTS, RESOLVER]);
        let dir = volumes::pod_dir(root.path(), &plain.uid);
        assert_eq!(ready.managed[0].host_path, dir.join("containers/c/00000003").display().to_string());
        for file in ["etc-hosts", "resolv.conf"] {
            assert_eq!(fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, FILE_MODE);
        }
        assert!(fs::read_to_string(dir.join("resolv.conf")).unwrap().starts_with("nameserver 10.96.0.10\n"));
        assert_eq!(targets(&prepared(&plain, root.path(), None).unwrap()), ["/dev/termination-log", RESOLVER]);
        let own = pod_with(
            "volumes: [{name: v, emptyDir: {}}]",
            "volumeMounts: [{name: v, mountPath: /etc/hosts, subPath: a}, {name: v, mountPath: /etc/resolv.conf/}]",
        );
        let mut only = own.clone();
        only.spec.containers[0].volume_mounts.as_mut().unwrap().remove(0);
        assert_eq!(targets(&prepared(&only, root.path(), Some("::2")).unwrap()), ["/dev/termination-log", HOSTS]);
        let relative = pod_with(
            "volumes: [{name: v, emptyDir: {}}]",
            "terminationMessagePath: run/end\n    volumeMounts: [{name: v, mountPath: etc/hosts}]",
        );
        assert_eq!(targets(&prepared(&relative, root.path(), Some("::2")).unwrap()), ["/run/end", RESOLVER]);
    }

    #[test]
    fn a_managed_file_is_rewritten_in_place() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc-hosts");
        rewrite(&path, "a longer text\n").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        // As an agent with another umask, killed in between, leaves it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        rewrite(&path, "a longer text\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, FILE_MODE);
        rewrite(&path, "short\n").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), fs::metadata(&path).unwrap().ino()),
            ("short\n", inode)
        );
    }

    #[test]
    fn an_expression_needs_every_variable_it_names() {
        let known = env::Known::from([
            ("A".to_owned(), b"a".to_vec()),
            ("EMPTY".to_owned(), vec![]),
            ("UP".to_owned(), b"../x".to_vec()),
            ("RAW".to_owned(), b"\xff".to_vec()),
        ]);
        for (text, expected) in [
            ("logs/$(A)", Ok("logs/a")),
            ("$$(A)", Ok("$(A)")),
            ("$(NONE)/$(EMPTY)", Err("not set or empty: NONE, EMPTY")),
            ("$(UP)", Err("without '..'")),
            ("$(RAW)", Err("no UTF-8")),
        ] {
            let mount = VolumeMount { sub_path_expr: Some(text.into()), ..VolumeMount::default() };
            match (wanted_sub_path(&mount, &known), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, expected),
                (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
                (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
            }
        }
    }
}
