//! The phases that write objects to the API server: what they write, whoever writes or prints it.

use jiff::Timestamp;

use super::StepError;
use super::drawn::Drawn;
use crate::cluster::addons::{coredns, kube_proxy};
use crate::cluster::bootstrap_token::to_secret;
use crate::cluster::object::{Manner, Object};
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
    pub drawn: &'a Drawn,
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
}

impl Objects {
    fn new(objects: Vec<Object>, note: impl Into<String>) -> Self {
        Self { objects, notes: vec![note.into()], warnings: vec![] }
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
    let mut objects = bootstrap::tokens(&input.drawn.tokens, input.now);
    objects.extend(bootstrap::rights());
    objects.extend(bootstrap::cluster_info(input.spec, &authority).map_err(cause)?);
    let ids: Vec<&str> = input.drawn.tokens.iter().map(|token| token.token.id()).collect();
    Ok(Objects::new(objects, format!("gave the cluster the bootstrap token {}", ids.join(", "))))
}

/// `upload-certs`, where it was asked for.
pub fn upload_certs(input: &Input<'_>, _: &[&'static str]) -> Result<Objects, StepError> {
    if !input.spec.upload_certs {
        return Ok(Objects::new(vec![], "nothing is uploaded without --upload-certs"));
    }
    upload_certs::check_authorities(input.spec, input.tree).map_err(cause)?;
    let sealed = upload_certs::seal_files(input.spec, input.tree, &input.drawn.certificate_key).map_err(cause)?;
    let ttl = to_secret(&upload_certs::ttl_token(input.drawn.certificates_token.clone()), input.now);
    let (owner, secret) = (Object::new(&ttl), Object::new(&upload_certs::secret(sealed, &ttl)));
    let rights = [Object::new(&upload_certs::role()), Object::new(&upload_certs::role_binding())];
    let mut objects = vec![secret.owned_by(&owner), owner];
    objects.extend(rights);
    Ok(Objects::new(objects, format!("uploaded the certificates to the Secret {}", upload_certs::SECRET_NAME)))
}

/// `addon`.
pub fn addons(input: &Input<'_>, select: &[&'static str]) -> Result<Objects, StepError> {
    let (spec, mut all) = (input.spec, Objects::default());
    if select.contains(&coredns::NAME) && !spec.dns.disabled {
        let made = coredns::objects(spec, &coredns::Existing::default()).map_err(cause)?;
        all.objects.extend([
            Object::new(&made.service_account),
            Object::new(&made.cluster_role),
            Object::new(&made.cluster_role_binding),
            // How many servers there are, and what they serve, is the administrator's once they are there.
            Object::new(&made.config_map).with(Manner::Keep),
            Object::new(&made.deployment).keeping("/spec/replicas"),
            Object::new(&made.service),
        ]);
        all.notes.push("gave the cluster CoreDNS".to_owned());
    }
    if select.contains(&kube_proxy::NAME) && !spec.proxy.disabled {
        let made = kube_proxy::objects(spec, input.proxy_env).map_err(cause)?;
        all.objects.extend([
            Object::new(&made.service_account),
            Object::new(&made.config_map),
            Object::new(&made.daemon_set),
            Object::new(&made.cluster_role_binding),
            Object::new(&made.role),
            Object::new(&made.role_binding),
        ]);
        all.warnings.extend(made.warnings);
        all.notes.push("gave the cluster kube-proxy".to_owned());
    }
    Ok(all)
}
