//! CoreDNS, the cluster's name server.

use askama::Template;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};

use serde_json::Value;

use super::super::object::{Object, WriteMode};
use super::corefile::{CorefileError, migrated};
use super::{AddonError, Objects};
use crate::config::ClusterSpec;
use crate::kubelet::files::dns_address;
use crate::manifests::coredns_image;
use crate::manifests::patches::{COREDNS_TARGET, Patches};
use crate::manifests::template::filters;
use crate::release::{self, RELEASES};

/// The name of the addon, of its Deployment and of its config map.
pub const NAME: &str = "coredns";
/// The key of the config map that the Corefile is under.
pub const COREFILE: &str = "Corefile";
/// The key that kubeadm keeps the old one under when it changes a user's own Corefile.
const COREFILE_BACKUP: &str = "Corefile-backup";
/// The first CoreDNS that does not take a Corefile of every older one, as the releases of the table have it.
const STRICTER: (u64, u64) = (1, 8);

/// kubeadm's number of servers.
const REPLICAS: i32 = 2;

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
    /// Its version, major and minor; None where its tag tells none.
    pub version: Option<(u64, u64)>,
}

impl CoreDns {
    /// All of them, to be written. A Corefile and a number of servers that a user has chosen stay; of the Corefile goes
    /// what this CoreDNS does not take any more.
    pub fn objects(&self) -> Vec<Object> {
        let is_old = self.version.is_some_and(|version| version < STRICTER);
        let adapt = if is_old { keep_corefile } else { migrate_corefile };
        vec![
            Object::new(&self.service_account),
            Object::new(&self.cluster_role),
            Object::new(&self.cluster_role_binding),
            Object::new(&self.config_map).with(WriteMode::Adapt(adapt)),
            Object::new(&self.deployment).with(WriteMode::Adapt(keep_replicas)),
            Object::new(&self.service),
        ]
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

/// Makes the objects of CoreDNS.
///
/// # Errors
/// Patches that cannot be read, do not apply or do not leave a Deployment; a network or domain that validation would
/// have refused.
pub fn objects(spec: &ClusterSpec) -> Result<CoreDns, AddonError> {
    let addon = NAME;
    let row = release::find(&spec.kubernetes_version).row;
    let corefile = corefile(&spec.networking.dns_domain, row.coredns_uncached_zones)?;
    let template = CoreDnsTemplate {
        corefile: &corefile,
        replicas: REPLICAS,
        taints: row.control_plane_taints,
        image: &coredns_image(spec),
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
        version: version(spec),
    })
}

/// The version of the CoreDNS that `spec` runs; None where its tag is none.
fn version(spec: &ClusterSpec) -> Option<(u64, u64)> {
    let image = coredns_image(spec);
    let tag = image.rsplit_once(':')?.1.trim_start_matches('v');
    let version = semver::Version::parse(tag).ok()?;
    Some((version.major, version.minor))
}

/// Whether the Corefile that is there, if it is a user's own, can be brought to the CoreDNS that `spec` runs.
///
/// # Errors
/// See [`CorefileError`].
pub fn check(spec: &ClusterSpec, corefile: &str) -> Result<(), CorefileError> {
    if is_ours(corefile) {
        return Ok(());
    }
    migrated(corefile, version(spec).unwrap_or(STRICTER)).map(drop)
}

/// A Corefile that is the user's stays; one that we make, for whichever release, becomes the one of this release.
fn keep_corefile(current: &Value, wanted: &mut Value) {
    if let Some(own) = current["data"][COREFILE].as_str().filter(|text| !is_ours(text)) {
        wanted["data"][COREFILE] = own.into();
    }
}

/// The same for a CoreDNS that takes less. One that cannot be changed stays: the user was warned.
fn migrate_corefile(current: &Value, wanted: &mut Value) {
    keep_corefile(current, wanted);
    let Some(own) = wanted["data"][COREFILE].as_str().map(str::to_owned).filter(|text| !is_ours(text)) else { return };
    if let Some(new) = migrated(&own, STRICTER).ok().filter(|new| *new != own) {
        wanted["data"][COREFILE] = new.into();
        wanted["data"][COREFILE_BACKUP] = own.into();
    }
}

fn keep_replicas(current: &Value, wanted: &mut Value) {
    if let Some(replicas) = current["spec"]["replicas"].as_i64() {
        wanted["spec"]["replicas"] = replicas.into();
    }
}

/// Whether a Corefile is empty or one that we make for some release.
fn is_ours(text: &str) -> bool {
    // The domain is the first word behind the name of the plugin.
    let domain = text.lines().find_map(|line| line.trim().strip_prefix("kubernetes ")?.split(' ').next());
    let mut ours = RELEASES.iter().filter_map(|row| corefile(domain?, row.coredns_uncached_zones).ok());
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
