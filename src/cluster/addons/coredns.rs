//! CoreDNS, the cluster's name server.

use askama::Template;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};

use super::{AddonError, Objects, stream};
use crate::config::ClusterSpec;
use crate::kubelet::files::dns_address;
use crate::manifests::patches::{COREDNS_TARGET, Patches};
use crate::manifests::template::filters;
use crate::release::{self, RELEASES};

/// The name of the addon, of its Deployment and of its config map.
pub const NAME: &str = "coredns";
/// The key of the config map that the Corefile is under.
pub const COREFILE: &str = "Corefile";

/// kubeadm's number of servers.
const REPLICAS: i32 = 2;

/// What stays as it is in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    /// How many servers its Deployment has; None where there is none.
    pub replicas: Option<i32>,
    /// The Corefile; None where there is none.
    pub corefile: Option<String>,
}

/// Everything that CoreDNS is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreDns {
    /// Who it is.
    pub service_account: ServiceAccount,
    /// What it may read.
    pub cluster_role: ClusterRole,
    /// That it may.
    pub cluster_role_binding: ClusterRoleBinding,
    /// Its Corefile.
    pub config_map: ConfigMap,
    /// The servers.
    pub deployment: Deployment,
    /// The address that pods ask, the tenth of the first service network.
    pub service: Service,
}

impl CoreDns {
    /// All objects as YAML documents.
    ///
    /// # Errors
    /// None but those of writing YAML.
    pub fn yaml(&self) -> Result<String, AddonError> {
        let Self { service_account, cluster_role, cluster_role_binding, config_map, deployment, service } = self;
        stream(NAME, &[service_account, cluster_role, cluster_role_binding, config_map, deployment, service])
    }
}

#[derive(Template)]
#[template(path = "coredns.yml")]
struct CoreDnsTemplate<'a> {
    corefile: &'a str,
    replicas: i32,
    taints: &'a [&'a str],
    image: &'a str,
    address: &'a str,
}

#[derive(Template)]
#[template(path = "Corefile.txt")]
struct CorefileTemplate<'a> {
    domain: &'a str,
    uncached: bool,
}

/// Makes the objects of CoreDNS. `existing` keeps its number of servers, and its Corefile unless that is one of ours for
/// any release, which then becomes the one of this release.
///
/// # Errors
/// Patches that cannot be read, do not apply or do not leave a Deployment; a network or domain that validation would
/// have refused.
pub fn objects(spec: &ClusterSpec, existing: &Existing) -> Result<CoreDns, AddonError> {
    let addon = NAME;
    let row = release::find(&spec.kubernetes_version).row;
    let corefile = match &existing.corefile {
        Some(own) if !is_ours(spec, own) => own.clone(),
        _ => corefile(&spec.networking.dns_domain, row.coredns_uncached_zones)?,
    };
    let template = CoreDnsTemplate {
        corefile: &corefile,
        replicas: existing.replicas.unwrap_or(REPLICAS),
        taints: row.control_plane_taints,
        image: &release::coredns_image(spec),
        address: &dns_address(spec)?,
    };
    let text = template.render().map_err(|source| AddonError::Template { addon, source })?;
    let mut objects = Objects::parse(addon, &text)?;
    let mut deployment = objects.take("Deployment")?;
    if let Some(dir) = &spec.patches_dir {
        Patches::read(dir)
            .and_then(|patches| patches.apply(COREDNS_TARGET, &mut deployment))
            .map_err(|source| AddonError::Patch { addon, source })?;
    }
    Ok(CoreDns {
        service_account: objects.typed("ServiceAccount")?,
        cluster_role: objects.typed("ClusterRole")?,
        cluster_role_binding: objects.typed("ClusterRoleBinding")?,
        config_map: objects.typed("ConfigMap")?,
        deployment: objects.decode("Deployment", deployment)?,
        service: objects.typed("Service")?,
    })
}

/// Whether a Corefile is none of the user's: empty, or one that we make for some release.
fn is_ours(spec: &ClusterSpec, text: &str) -> bool {
    let domain = &spec.networking.dns_domain;
    let mut ours = RELEASES.iter().filter_map(|row| corefile(domain, row.coredns_uncached_zones).ok());
    text.trim().is_empty() || ours.any(|ours| ours.trim_end() == text.trim_end())
}

fn corefile(domain: &str, uncached: bool) -> Result<String, AddonError> {
    // Anything else would begin another word, block or comment.
    let holds = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if domain.is_empty() || !domain.chars().all(holds) {
        return Err(AddonError::Domain { domain: domain.to_owned() });
    }
    let text = CorefileTemplate { domain, uncached }
        .render()
        .map_err(|source| AddonError::Template { addon: NAME, source })?;
    Ok(format!("{}\n", text.trim_end()))
}
