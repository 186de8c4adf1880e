//! The version of a component, and a write through the API server.

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::{API_SERVER, Sight, Subject};
use crate::cluster::SYSTEM;
use crate::cluster::object::Object;
use crate::error::chain;
use crate::etcd::Minor;
use crate::manifests::ETCD;
use crate::workflow::upgrade::manifest::{image, parse};
use crate::workflow::upgrade::target::{file, tag_version};

/// The object that is written, read and removed.
const NAME: &str = "kubeboot-upgrade-check";
/// Why an API server is not asked.
pub(super) const UNANSWERED: &str = "the API server did not answer the administrator before the upgrade either";

/// The component runs the version that its image's tag names.
pub fn version<'a>(subject: &'a Subject<'a>) -> BoxFuture<'a, Sight> {
    async move {
        let Ok(manifest) = parse(&file(subject.component), subject.manifest) else {
            return Sight::Skipped("its manifest cannot be read".into());
        };
        let image = image(&manifest);
        let Some(wanted) = tag_version(image) else {
            return Sight::Skipped(format!("the tag of {image} is no version"));
        };
        if subject.component == ETCD {
            return etcd_version(subject, wanted).await;
        }
        if !subject.parts.api_answered {
            return Sight::Skipped(UNANSWERED.into());
        }
        let api = subject.parts.api;
        if subject.component == API_SERVER {
            let found = api.cluster.version(api.site, None).await;
            return match found {
                Ok(found) => compare(wanted, &found),
                Err(cause) => Sight::NotYet(words(&*cause)),
            };
        }
        let Some(address) = secure_address(&manifest) else {
            return Sight::Skipped("its manifest does not say where it serves".into());
        };
        match api.cluster.version(api.site, Some(&address)).await {
            Ok(found) => compare(wanted, &found),
            Err(cause) => Sight::Unseen(words(&*cause)),
        }
    }
    .boxed()
}

/// etcd's minor version, which decides on the format of its data: `images build` puts whichever etcd there is below the tag
/// of a release.
async fn etcd_version(subject: &Subject<'_>, (major, minor, _): (u64, u64, u64)) -> Sight {
    let wanted = Minor { major, minor };
    match subject.parts.etcd.status().await {
        Ok(status) if status.minor() == Some(wanted) => Sight::Passed,
        Ok(status) => Sight::NotYet(format!("it is etcd {}, not {wanted}", status.version)),
        Err(error) => Sight::Unseen(chain(&error)),
    }
}

fn compare(wanted: (u64, u64, u64), found: &str) -> Sight {
    let version = semver::Version::parse(found.trim_start_matches('v')).ok();
    match version.map(|version| (version.major, version.minor, version.patch)) {
        Some(version) if version == wanted => Sight::Passed,
        _ => Sight::NotYet(format!("it is {found}, not v{}.{}.{}", wanted.0, wanted.1, wanted.2)),
    }
}

/// Where a component serves: its liveness probe, whose port may be named.
pub(super) fn secure_address(manifest: &Value) -> Option<String> {
    let container = manifest.pointer("/spec/containers/0")?;
    let probe = container.pointer("/livenessProbe/httpGet").filter(|probe| probe["scheme"] == "HTTPS")?;
    let named = |name: &str| {
        let mut ports = container["ports"].as_array()?.iter();
        ports.find(|port| port["name"] == name)?["containerPort"].as_u64()
    };
    let port = probe["port"].as_u64().or_else(|| probe["port"].as_str().and_then(named))?;
    let host = probe["host"].as_str().filter(|host| !host.is_empty()).unwrap_or("127.0.0.1");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(format!("https://{host}:{port}"))
}

/// An object is written, read as it was written, and removed.
pub fn write<'a>(subject: &'a Subject<'a>) -> BoxFuture<'a, Sight> {
    async move {
        if !subject.parts.api_answered {
            return Sight::Skipped(UNANSWERED.into());
        }
        let says = Timestamp::now().to_string();
        let Some(map) = config_map(NAME, &says) else { return Sight::Skipped("there is no such object".into()) };
        let api = subject.parts.api;
        let tried = async {
            api.cluster.apply(api.site, std::slice::from_ref(&map)).await?;
            // Removed however the reading went.
            let read = api.cluster.get(api.site, &map).await;
            api.cluster.remove(api.site, &map).await?;
            read
        };
        match tried.await {
            Ok(Some(read)) if read["data"]["written"] == says.as_str() => Sight::Passed,
            Ok(_) => Sight::NotYet(format!("the ConfigMap {SYSTEM}/{NAME} is not read as it was written")),
            Err(cause) => Sight::NotYet(words(&*cause)),
        }
    }
    .boxed()
}

/// A ConfigMap of the cluster's own that says this.
pub(super) fn config_map(name: &str, says: &str) -> Option<Object> {
    let value = json!({"metadata": {"name": name, "namespace": SYSTEM}, "data": {"written": says}});
    serde_json::from_value::<ConfigMap>(value).ok().map(|map| Object::new(&map))
}

/// A failure and its causes.
pub(super) fn words(cause: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    chain(cause)
}
