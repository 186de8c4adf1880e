//! The phases that write objects to the API server: what they write, whoever writes or prints it.

use jiff::Timestamp;

use super::StepError;
use super::generated_secrets::GeneratedSecrets;
use crate::cluster::addons::{coredns, kube_proxy};
use crate::cluster::object::Object;
use crate::cluster::{bootstrap, node, upload_certs, upload_config};
use crate::config::ClusterSpec;
use crate::host::tree::Tree;

/// What these phases work from.
pub struct Input<'a> {
    /// The configuration.
    pub spec: &'a ClusterSpec,
    /// The files of this node.
    pub tree: &'a dyn Tree,
    /// Tokens and keys.
    pub generated_secrets: &'a GeneratedSecrets,
    /// Proxy variables that the components are to have.
    pub proxy_env: &'a [(String, String)],
    /// The moment tokens live from.
    pub now: Timestamp,
}

/// What a phase writes, and has to say.
#[derive(Debug, Default)]
pub struct Objects {
    /// The objects.
    pub objects: Vec<Object>,
    /// Lines for the user.
    pub notes: Vec<String>,
    /// What the user should know of.
    pub warnings: Vec<String>,
    /// What is printed once everything is done; may hold a secret that was asked for.
    pub text: String,
    /// The key of uploaded certificates, where it may be told.
    pub certificate_key: Option<String>,
}

impl Objects {
    fn new(objects: Vec<Object>, note: impl Into<String>) -> Self {
        Self { objects, notes: vec![note.into()], ..Self::default() }
    }
}

/// An object that cannot be made.
fn cause(error: impl std::error::Error + Send + Sync + 'static) -> StepError {
    StepError::Cluster(Box::new(error))
}

/// `upload-config`.
pub fn upload_config(input: &Input<'_>, select: &[&'static str]) -> Result<Objects, StepError> {
    let mut all = Objects::default();
    if select.contains(&"kubeadm") {
        all.objects.extend(upload_config::kubeadm(input.spec).map_err(cause)?);
    }
    if select.contains(&"kubelet") {
        all.objects.extend(upload_config::kubelet(input.spec).map_err(cause)?);
    }
    let maps = all.objects.iter().filter(|object| object.resource.kind == "ConfigMap");
    all.notes = maps.map(|map| format!("stored the configuration in the {}", map.key())).collect();
    all.objects.extend(node::cri_socket(input.spec).filter(|_| select.contains(&"kubelet")));
    Ok(all)
}

/// `mark-control-plane`.
pub fn mark_control_plane(input: &Input<'_>, _: &[&'static str]) -> Result<Objects, StepError> {
    Ok(Objects { objects: vec![node::mark(input.spec)], ..Objects::default() })
}

/// `bootstrap-token`.
pub fn bootstrap_token(input: &Input<'_>, _: &[&'static str]) -> Result<Objects, StepError> {
    let path = input.spec.certificates_dir.join("ca.crt");
    let Some(authority) = input.tree.read(&path)? else { return Err(StepError::NoAuthority { path }) };
    let mut objects = bootstrap::tokens(&input.generated_secrets.tokens, input.now);
    objects.extend(bootstrap::rights());
    objects.extend(bootstrap::cluster_info(input.spec, &authority).map_err(cause)?);
    let ids: Vec<&str> = input.generated_secrets.tokens.iter().map(|token| token.token.id()).collect();
    let note = match ids.is_empty() {
        true => "gave the cluster no new bootstrap token".to_owned(),
        false => format!("gave the cluster the bootstrap token {}", ids.join(", ")),
    };
    Ok(Objects::new(objects, note))
}

/// `upload-certs`.
pub fn upload_certs(input: &Input<'_>, _: &[&'static str]) -> Result<Objects, StepError> {
    let (spec, key) = (input.spec, &input.generated_secrets.certificate_key);
    if !spec.upload_certs {
        let note = "Skipping phase. Please see --upload-certs".to_owned();
        return Ok(Objects { notes: vec![note], ..Objects::default() });
    }
    upload_certs::check_authorities(spec, input.tree).map_err(cause)?;
    let sealed = upload_certs::seal_files(spec, input.tree, key).map_err(cause)?;
    let ttl = upload_certs::ttl_token(input.generated_secrets.certificates_token.clone());
    let note = "Storing the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace";
    let text = match spec.hide_secrets.certificate_key {
        true => String::new(),
        false => format!("[upload-certs] Using certificate key:\n{}\n", key.reveal()),
    };
    let certificate_key = (!spec.hide_secrets.certificate_key).then(|| key.reveal());
    Ok(Objects { text, certificate_key, ..Objects::new(upload_certs::objects(sealed, &ttl, input.now), note) })
}

/// `addon`.
pub fn addons(input: &Input<'_>, select: &[&'static str]) -> Result<Objects, StepError> {
    addon_objects(input.spec, input.proxy_env, select)
}

/// The objects of the selected addons that are not disabled. They depend on nothing but the configuration.
///
/// # Errors
/// Patches and settings of the user's that cannot be used.
pub fn addon_objects(
    spec: &ClusterSpec,
    proxy_env: &[(String, String)],
    select: &[&'static str],
) -> Result<Objects, StepError> {
    let mut all = Objects::default();
    let skipped = |name: &str| format!("Skipping addon {name}: the configuration disables it");
    match select.contains(&coredns::NAME) {
        true if spec.dns.disabled => all.notes.push(skipped(coredns::NAME)),
        true => {
            all.objects.extend(coredns::objects(spec).map_err(cause)?.objects());
            all.notes.push("Applied essential addon: CoreDNS".into());
        }
        false => {}
    }
    match select.contains(&kube_proxy::NAME) {
        true if spec.proxy.disabled => all.notes.push(skipped(kube_proxy::NAME)),
        true => {
            let addon = kube_proxy::objects(spec, proxy_env).map_err(cause)?;
            all.objects.extend(addon.objects());
            all.warnings.extend(addon.warnings);
            all.notes.push("Applied essential addon: kube-proxy".into());
        }
        false => {}
    }
    Ok(all)
}
