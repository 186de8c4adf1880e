//! What `init` would do, done in memory: no root, no network, no runtime, and not a file touched.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::drawn::Drawn;
use super::files::Input;
use super::{InitError, PHASES, What, failure, objects, resolved};
use crate::cluster::object::Object;
use crate::config::ClusterSpec;
use crate::host::Paths;
use crate::host::fs::FsError;
use crate::host::tree::{HostTree, MemoryFile, MemoryTree, NoRecord, Tree};

/// What stands in the place of a secret.
const WITHHELD: &str = "<withheld>";

/// What `init` would do.
#[derive(Default)]
pub struct Rehearsal {
    steps: Vec<Step>,
    tree: MemoryTree,
}

enum Step {
    Would(&'static str, String),
    Warning(&'static str, String),
    Write(PathBuf, MemoryFile),
    Apply(Object),
}

/// One step, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "step")]
pub enum Shown {
    /// Something besides a file.
    Action {
        /// What would be done.
        text: String,
    },
    /// Something the user should know of.
    Warning {
        /// What.
        text: String,
    },
    /// A file.
    File {
        /// Where, as the node sees it.
        path: PathBuf,
        /// Its mode, in octal.
        mode: String,
        /// What it would hold; of a private key, nothing.
        content: String,
    },
    /// An object in the cluster.
    Object {
        /// What would be done: `CREATE` or `PATCH`.
        action: String,
        /// Its kind, namespace and name.
        name: String,
        /// The object as YAML; of a secret, nothing.
        content: String,
    },
}

/// Goes through `what` in memory, above what is on the machine.
///
/// # Errors
/// What would stop `init` too: phases that do not exist, patches that do not apply, certificates that do not fit.
pub fn rehearse(spec: &ClusterSpec, what: &What, paths: &Paths, program: &Path) -> Result<Rehearsal, InitError> {
    let proxy_env = crate::host::environment::proxies();
    let input = Input { spec, proxy_env: &proxy_env, program, now: Timestamp::now() };
    let selected = match what {
        What::Everything => PHASES.select(&spec.skip_phases)?.run,
        What::Phase(name, sub) => vec![PHASES.one(name, sub.as_deref())?],
    };
    let selected = resolved(selected)?;
    let drawn = Drawn::new(spec).map_err(|source| failure("preflight", source))?;
    let mut rehearsal = Rehearsal::above(paths);
    for one in &selected {
        let phase = one.phase.name;
        if let Some(write) = one.phase.work.files {
            let said = rehearsal.files(|tree| write(&input, &one.children, tree)).map_err(|e| failure(phase, e))?;
            said.warnings.into_iter().for_each(|text| rehearsal.steps.push(Step::Warning(phase, text)));
        }
        if let Some(make) = one.phase.work.objects {
            let (tree, now) = (&rehearsal.tree, input.now);
            let input = objects::Input { spec, tree, drawn: &drawn, proxy_env: &proxy_env, now };
            let made = make(&input, &one.children).map_err(|source| failure(phase, source))?;
            rehearsal.steps.extend(made.warnings.into_iter().map(|text| Step::Warning(phase, text)));
            rehearsal.steps.extend(made.objects.into_iter().map(Step::Apply));
        }
        let would = one.phase.work.would.map(|would| would(spec)).unwrap_or_default();
        would.into_iter().for_each(|text| rehearsal.would(phase, text));
    }
    Ok(rehearsal)
}

impl Rehearsal {
    /// Nothing yet, above what is on the machine.
    pub(in crate::workflow) fn above(paths: &Paths) -> Self {
        Self { steps: Vec::new(), tree: MemoryTree::above(paths.clone()) }
    }

    /// Something besides a file.
    pub(in crate::workflow) fn would(&mut self, phase: &'static str, text: String) {
        self.steps.push(Step::Would(phase, text));
    }

    /// The files that `write` writes.
    pub(in crate::workflow) fn files<T, E>(
        &mut self,
        write: impl FnOnce(&mut dyn Tree) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.tree.clone();
        let said = write(&mut self.tree)?;
        let new = self.tree.since(&before);
        self.steps.extend(new.files().iter().map(|(path, file)| Step::Write(path.clone(), file.clone())));
        Ok(said)
    }

    /// The steps in kubeadm's words; no secret is in it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            match step {
                Step::Would(phase, what) => text.push_str(&format!("[{phase}] {what}\n")),
                Step::Warning(phase, what) => text.push_str(&format!("[{phase}] WARNING: {what}\n")),
                Step::Write(path, file) => {
                    text.push_str(&format!("[dryrun] Would write file {path:?} with content:\n"));
                    without_secrets(&file.content).lines().for_each(|line| text.push_str(&format!("\t{line}\n")));
                }
                Step::Apply(object) => {
                    let (verb, resource, group) = object.action();
                    let what = format!("{verb} on resource {resource:?} in API group {group:?}");
                    text.push_str(&format!("[dryrun] Would perform action {what}\n[dryrun] Attached object:\n"));
                    shown(object).lines().for_each(|line| text.push_str(&format!("\t{line}\n")));
                }
            }
        }
        text
    }

    /// The steps as values; no secret is in them.
    pub fn shown(&self) -> Vec<Shown> {
        let shown = |step: &Step| match step {
            Step::Would(_, text) => Shown::Action { text: text.clone() },
            Step::Warning(_, text) => Shown::Warning { text: text.clone() },
            Step::Write(path, file) => Shown::File {
                path: path.clone(),
                mode: format!("{:04o}", file.mode),
                content: without_secrets(&file.content),
            },
            Step::Apply(object) => Shown::Object {
                action: object.action().0.to_owned(),
                name: object.key().to_string(),
                content: shown(object),
            },
        };
        self.steps.iter().map(shown).collect()
    }

    /// Writes the files, secrets too, with their modes below `dir`, at the paths that the node would see; returns how
    /// many.
    ///
    /// # Errors
    /// What the file system refuses, the root directory among it.
    pub fn write_below(&self, dir: &Path) -> Result<usize, FsError> {
        std::fs::create_dir_all(dir).map_err(|e| FsError::new("create directory", dir, e))?;
        let dir = dir.canonicalize().map_err(|e| FsError::new("find", dir, e))?;
        if dir == Path::new("/") {
            let refused =
                std::io::Error::other("a dry run writes nothing where it would count; name another directory");
            return Err(FsError::new("write below", dir, refused));
        }
        let mut tree = HostTree::new(Paths::new(dir), NoRecord);
        for (path, mode) in self.tree.dirs() {
            tree.make_dir(path, *mode)?;
        }
        for (path, file) in self.tree.files() {
            tree.write(path, &file.content, file.mode)?;
        }
        Ok(self.tree.files().len())
    }
}

fn shown(object: &Object) -> String {
    // An object is JSON, which YAML holds whole.
    object.shown().unwrap_or_default()
}

/// The text of a file, without private keys and tokens.
fn without_secrets(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    if text.contains("PRIVATE KEY-----") {
        return format!("{WITHHELD}\n");
    }
    let line = |line: &str| match line.split_once(':') {
        Some((name, _)) if matches!(name.trim(), "client-key-data" | "token" | "password") => {
            format!("{name}: {WITHHELD}\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    fn rehearsal(root: &Path) -> Rehearsal {
        let program = Path::new("/usr/local/bin/kubeboot");
        rehearse(&crate::testing::spec(), &What::Everything, &Paths::new(root), program).unwrap()
    }

    #[test]
    fn everything_is_shown_but_secrets_and_nothing_is_written() {
        let root = tempfile::tempdir().unwrap();
        let rehearsal = rehearsal(root.path());
        let text = rehearsal.text();
        for file in ["pki/ca.crt", "pki/etcd/peer.key", "admin.conf", "manifests/kube-scheduler.yaml"] {
            let line = format!("[dryrun] Would write file \"/etc/kubernetes/{file}\" with content:\n");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert!(text.contains("[wait-control-plane] Would wait for etcd, kube-apiserver"), "{text}");
        assert!(text.contains("\tkind: Pod\n"));
        for resource in ["configmaps", "secrets", "rolebindings", "clusterroles", "nodes"] {
            assert!(text.contains(&format!(" on resource \"{resource}\" in API group")), "{resource}");
        }
        assert!(text.contains("\t  token-secret: <withheld>\n"), "{text}");
        let json = serde_json::to_string(&rehearsal.shown()).unwrap();
        for text in [text, json] {
            // The beginning of a PEM block, as it is and in base64.
            assert!(!text.contains("PRIVATE KEY") && !text.contains("LS0tLS1CRUdJTiBQUklWQVRFIEtF"));
            assert!(
                !text.contains("LS0tLS1CRUdJTiBFQyBQUklWQVRF") && !text.contains("LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBL")
            );
        }
        assert_eq!(listing(root.path()), Vec::<String>::new());
    }

    #[test]
    fn below_a_directory_everything_is_written_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = out.path().join("new");
        let count = rehearsal(root.path()).write_below(&dir).unwrap();
        let files = listing(&dir).iter().filter(|path| !path.ends_with('/')).count();
        assert_eq!(files, count);
        let mode = |path| std::fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("etc/kubernetes/pki/ca.key"), mode("etc/kubernetes/pki/ca.crt")), (0o600, 0o644));
        assert_eq!(listing(root.path()), Vec::<String>::new());
        rehearsal(root.path()).write_below(Path::new("/")).unwrap_err();
    }
}
