//! The phases that write files, into whichever tree: the machine's or a dry run's.

use std::path::Path;

use jiff::Timestamp;

use super::StepError;
use crate::config::ClusterSpec;
use crate::host::paths::KUBELET_DIR;
use crate::host::tree::Tree;
use crate::manifests;
use crate::pki::{self, Action, Outcome};
use crate::runtime::endpoint::Endpoint;
use crate::workflow::node_files::{RESOLVED, made_by_agent, render};
use crate::workflow::state::inventory::{Entry, Item};

/// What file phases work from.
pub struct Input<'a> {
    /// The configuration.
    pub spec: &'a ClusterSpec,
    /// Proxy variables that the components are to have.
    pub proxy_env: &'a [(String, String)],
    /// This program, as the unit is to call it.
    pub program: &'a Path,
    /// The moment certificates are valid from.
    pub now: Timestamp,
}

/// What a file phase has to say.
#[derive(Debug, Default)]
pub struct Files {
    /// Lines for the user.
    pub notes: Vec<String>,
    /// What the user should know of.
    pub warnings: Vec<String>,
    /// Paths that the components or the agent will make where they are missing.
    pub will_be_made: Vec<Item>,
    /// What else the inventory has to know.
    pub entries: Vec<Entry>,
}

/// `certs`.
pub fn certificates(input: &Input<'_>, select: &[&'static str], tree: &mut dyn Tree) -> Result<Files, StepError> {
    Ok(reported(pki::ensure_certificates(input.spec, tree, select, input.now)?))
}

/// `kubeconfig`.
pub fn kubeconfigs(input: &Input<'_>, select: &[&'static str], tree: &mut dyn Tree) -> Result<Files, StepError> {
    Ok(reported(pki::ensure_kubeconfigs(input.spec, tree, select, input.now)?))
}

fn reported(outcomes: Vec<Outcome>) -> Files {
    let mut files = Files::default();
    for outcome in outcomes {
        files.notes.push(match outcome.action {
            Action::Created => format!("wrote {}", outcome.file),
            Action::Kept => format!("kept {}", outcome.file),
        });
        files.warnings.extend(outcome.warnings);
    }
    files
}

/// `etcd`: the data directory, closed, and the manifest; nothing where etcd is external.
pub fn etcd(input: &Input<'_>, _: &[&'static str], tree: &mut dyn Tree) -> Result<Files, StepError> {
    let Some(local) = input.spec.etcd.local() else {
        return Ok(Files { notes: vec!["etcd is external: nothing to write".into()], ..Files::default() });
    };
    // Where the directory is somebody's own (an empty disk mounted there), only what etcd puts into it is ours.
    let data = match tree.exists(&local.data_dir) {
        true => Item::tree(local.data_dir.join("member")),
        false => Item::tree(&local.data_dir),
    };
    tree.make_dir(&local.data_dir, 0o700)?;
    let mut files = write_manifests(input, &[manifests::ETCD], tree)?;
    files.will_be_made.insert(0, data);
    Ok(files)
}

/// `control-plane`.
pub fn control_plane(input: &Input<'_>, select: &[&'static str], tree: &mut dyn Tree) -> Result<Files, StepError> {
    let components: Vec<&str> =
        manifests::COMPONENTS.into_iter().filter(|c| select.iter().any(|name| *c == format!("kube-{name}"))).collect();
    write_manifests(input, &components, tree)
}

fn write_manifests(input: &Input<'_>, components: &[&str], tree: &mut dyn Tree) -> Result<Files, StepError> {
    let mut files = Files::default();
    for component in components {
        let manifest = render(input.spec, component, input.proxy_env, tree)?;
        manifests::write(&manifest, tree)?;
        files.notes.push(format!("wrote {}", manifest.path().display()));
        files.will_be_made.extend(manifest.made_dirs.iter().map(|dir| host_path(input.spec, dir)));
        files.entries.push(Entry::Pod {
            namespace: manifest.pod.metadata.namespace.clone().unwrap_or_else(|| "default".into()),
            name: format!("{}-{}", manifest.pod.metadata.name.as_deref().unwrap_or(component), input.spec.node.name),
        });
    }
    Ok(files)
}

/// A hostPath that starting a pod makes. Components write only into volumes that the user gave them to write into; into
/// the others (CA bundles) somebody else may put something.
fn host_path(spec: &ClusterSpec, dir: &Path) -> Item {
    let components = [&spec.api_server, &spec.controller_manager, &spec.scheduler];
    let mut given = components.into_iter().flat_map(|component| &component.extra_volumes);
    match given.any(|volume| !volume.read_only && Path::new(&volume.host_path) == dir) {
        true => Item::tree(dir),
        false => Item::dir(dir),
    }
}

/// `kubelet-start`: the kubelet's settings, the unit and its drop-in.
pub fn kubelet(input: &Input<'_>, _: &[&'static str], tree: &mut dyn Tree) -> Result<Files, StepError> {
    let ignored = crate::workflow::preflight::agent::check(input.spec)?;
    let had_dir = tree.exists(Path::new(KUBELET_DIR));
    let resolved = tree.exists(Path::new(RESOLVED));
    let written = crate::kubelet::files::write(input.spec, resolved, tree)?;
    crate::kubelet::unit::write(input.spec, input.program, tree)?;
    let unknown = crate::agent::options::unknown_fields(&input.spec.kubelet).into_iter();
    let unknown = unknown.map(|path| format!("KubeletConfiguration: unknown field {path:?}: no kubelet knows it"));
    let runtime = Endpoint::of(input.spec).address();
    Ok(Files {
        notes: vec![format!("wrote the kubelet's settings below {KUBELET_DIR} and the unit kubelet.service")],
        warnings: ignored.into_iter().chain(written.warnings).chain(unknown).collect(),
        will_be_made: made_by_agent(had_dir),
        entries: vec![Entry::Containers { runtime, owner: KUBELET_DIR.to_owned() }],
    })
}
