//! The checks before an upgrade, by kubeadm's names. What they look at is gathered first; each is a row of [`CHECKS`] and
//! a pure function of that.

use std::path::{Path, PathBuf};

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::{Finding, Severity, is_ignored};
use crate::cluster::addons::coredns;
use crate::cluster::addons::corefile::CorefileError;
use crate::cluster::object::Object;
use crate::config::ClusterSpec;
use crate::error::chain;
use crate::host::Paths;
use crate::host::paths::MANIFESTS_DIR;
use crate::manifests::pause_image;
use crate::manifests::{COMPONENTS, ETCD};
use crate::release::{KubernetesVersion, is_kubelet_too_old, kubeadm_row};
use crate::workflow::machine::Cause;
use crate::workflow::machine::cluster::Api;

/// What a cluster is like that is to be upgraded.
#[derive(Debug, Default)]
pub struct Seen {
    /// Manifests of the control plane that are not where they should be.
    pub missing: Vec<PathBuf>,
    /// Why no Job can be made.
    pub no_job: Option<String>,
    /// Nodes of the control plane that are not ready.
    pub not_ready: Vec<String>,
    /// Why they are not known.
    pub no_nodes: Option<String>,
    /// Nodes whose kubelets the new control plane does not go with, and the kubelets' versions.
    pub old_kubelets: Vec<String>,
    /// What is wrong with CoreDNS' settings.
    pub corefile: Option<CorefileError>,
}

struct Row {
    name: &'static str,
    check: fn(&Seen) -> Option<String>,
}

/// Kubelets that are too old, which `--force` gets past as well.
pub const KUBELETS: &str = "KubeletVersion";

/// In kubeadm's order. All of them are errors.
const CHECKS: &[Row] = &[
    Row { name: "CreateJob", check: create_job },
    Row { name: "ControlPlaneNodesReady", check: nodes_ready },
    Row { name: KUBELETS, check: old_kubelets },
    Row { name: "StaticPodManifest", check: manifests },
    Row { name: "CoreDNSUnsupportedPlugins", check: |seen| corefile(seen, "CoreDNSUnsupportedPlugins") },
    Row { name: "CoreDNSMigration", check: |seen| corefile(seen, "CoreDNSMigration") },
];

/// Every finding. Errors that are ignored come as warnings.
pub fn findings(seen: &Seen, ignored: &[String]) -> Vec<Finding> {
    let found = CHECKS.iter().filter_map(|row| Some((row.name, (row.check)(seen)?)));
    let severity = |name| if is_ignored(ignored, name) { Severity::Warning } else { Severity::Error };
    found.map(|(name, message)| Finding { check: name.to_owned(), severity: severity(name), message }).collect()
}

fn create_job(seen: &Seen) -> Option<String> {
    seen.no_job.as_ref().map(|why| format!("the cluster takes no Job: {why}"))
}

fn nodes_ready(seen: &Seen) -> Option<String> {
    match (&seen.no_nodes, seen.not_ready.as_slice()) {
        (Some(why), _) => Some(format!("the nodes of the control plane cannot be listed: {why}")),
        (None, []) => None,
        (None, nodes) => Some(format!("there are NotReady control-planes in the cluster: {}", nodes.join(", "))),
    }
}

fn old_kubelets(seen: &Seen) -> Option<String> {
    let text = "the new control plane does not go with kubelets that are so old; install newer ones first";
    (!seen.old_kubelets.is_empty()).then(|| format!("{text}: {}", seen.old_kubelets.join(", ")))
}

fn manifests(seen: &Seen) -> Option<String> {
    let files: Vec<String> = seen.missing.iter().map(|file| file.display().to_string()).collect();
    let text = "this machine does not have every manifest of a control plane, which is upgraded where it runs";
    (!files.is_empty()).then(|| format!("{text}; not there: {}", files.join(", ")))
}

fn corefile(seen: &Seen, name: &str) -> Option<String> {
    seen.corefile.as_ref().filter(|error| error.check() == name).map(ToString::to_string)
}

/// Looks at the files alone.
pub fn see_files(paths: &Paths) -> Seen {
    let components = COMPONENTS.iter().filter(|component| **component != ETCD);
    let files = components.map(|component| Path::new(MANIFESTS_DIR).join(format!("{component}.yaml")));
    Seen { missing: files.filter(|file| !paths.on_host(file).exists()).collect(), ..Seen::default() }
}

/// Asks the cluster; `settings` is CoreDNS' config map, if that is to be written.
///
/// # Errors
/// Those settings cannot be read.
pub async fn see_cluster(api: Api<'_>, settings: Option<&Object>) -> Result<Seen, Cause> {
    let spec = api.site.spec;
    let there = match settings {
        Some(map) => api.cluster.get(api.site, map).await?,
        None => None,
    };
    let corefile = there.as_ref().and_then(|map| map["data"][coredns::COREFILE].as_str());
    let corefile = corefile.and_then(|text| coredns::check(spec, text).err());
    // Every row ends with the name of today, which all of them have.
    let label = kubeadm_row(&spec.kubernetes_version).control_plane_labels.last().copied().unwrap_or_default();
    let job = job(spec);
    let (job, nodes) = tokio::join!(api.cluster.would_make(api.site, &job), api.cluster.list_nodes(api.site, ""));
    let all = nodes.as_deref().unwrap_or_default();
    Ok(Seen {
        missing: Vec::new(),
        no_job: job.err().map(|error| chain(&*error)),
        not_ready: not_ready(all.iter().filter(|node| !node["metadata"]["labels"][label].is_null())),
        old_kubelets: too_old(all, &spec.kubernetes_version),
        no_nodes: nodes.err().map(|error| chain(&*error)),
        corefile,
    })
}

/// kubeadm's Job, which it runs and waits for. Here the API server is asked whether it would make it, after all its
/// admission: a node without the network of a cluster could not run its pod, and does not need to.
fn job(spec: &ClusterSpec) -> Object {
    let taints = kubeadm_row(&spec.kubernetes_version).control_plane_taints;
    let tolerations: Vec<Value> = taints.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
    let pod = json!({
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 999, "runAsGroup": 999, "runAsNonRoot": true},
        "tolerations": tolerations,
        "containers": [{"name": "upgrade-health-check", "image": pause_image(spec), "args": ["-v"]}],
    });
    let metadata = json!({"generateName": "upgrade-health-check-", "namespace": "kube-system"});
    let spec = json!({"backoffLimit": 0, "ttlSecondsAfterFinished": 120, "template": {"spec": pod}});
    // It has no field that a Job has not.
    let job: Job = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap_or_default();
    Object::new(&job)
}

/// The version of a node's kubelet, where it says one.
pub fn kubelet_of(node: &Value) -> Option<KubernetesVersion> {
    node["status"]["nodeInfo"]["kubeletVersion"].as_str()?.parse().ok()
}

/// Those whose kubelets are too old for a control plane of `version`.
fn too_old(nodes: &[Value], version: &KubernetesVersion) -> Vec<String> {
    let old = nodes.iter().filter_map(|node| {
        let kubelet = kubelet_of(node).filter(|kubelet| is_kubelet_too_old(kubelet, version))?;
        Some(format!("{} ({kubelet})", node["metadata"]["name"].as_str()?))
    });
    old.collect()
}

/// The names of those that are not ready.
fn not_ready<'a>(nodes: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let is_ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let names = nodes.filter(|node| !is_ready(node)).filter_map(|node| node["metadata"]["name"].as_str());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::cluster::apply::Applied;
    use crate::workflow::machine::cluster::{self as machine, Site};

    /// A cluster with these nodes, which refuses Jobs or not.
    struct Cluster {
        nodes: Vec<Value>,
        refuses: bool,
        away: bool,
    }

    #[async_trait]
    impl machine::Cluster for Cluster {
        async fn ensure_admins(&self, _: Site<'_>, _: Duration) -> Result<bool, Cause> {
            Err("no rights are granted".into())
        }

        async fn get(&self, _: Site<'_>, _: &Object) -> Result<Option<Value>, Cause> {
            Ok(Some(json!({"data": {"Corefile": ".:53 {\n    mine\n}\n"}})))
        }

        async fn apply(&self, _: Site<'_>, _: &[Object]) -> Result<Vec<Applied>, Cause> {
            Err("nothing is written".into())
        }

        async fn remove(&self, _: Site<'_>, _: &Object) -> Result<(), Cause> {
            Err("nothing is removed".into())
        }

        async fn would_make(&self, _: Site<'_>, object: &Object) -> Result<(), Cause> {
            assert_eq!((object.resource.kind.as_str(), object.namespace()), ("Job", Some("kube-system")));
            let pod = &object.value["spec"]["template"]["spec"];
            assert_eq!(pod["tolerations"][0]["key"], "node-role.kubernetes.io/control-plane");
            assert_eq!(pod["containers"][0]["image"], "registry.k8s.io/pause:3.10.2");
            if self.refuses { Err("denied by policy".into()) } else { Ok(()) }
        }

        async fn metrics(&self, _: Site<'_>) -> Result<String, Cause> {
            Err("no check asks for that".into())
        }

        async fn list_nodes(&self, _: Site<'_>, label: &str) -> Result<Vec<Value>, Cause> {
            assert_eq!(label, "", "one list serves every check");
            if self.away { Err("connection refused".into()) } else { Ok(self.nodes.clone()) }
        }

        async fn version(&self, _: Site<'_>, _: Option<&str>) -> Result<String, Cause> {
            Err("no version is asked for".into())
        }
    }

    fn node(name: &str, ready: &str) -> Value {
        let conditions = json!([{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": ready}]);
        let labels = json!({"node-role.kubernetes.io/control-plane": ""});
        json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}})
    }

    fn texts(seen: &Seen, ignored: &[&str]) -> Vec<(Severity, String)> {
        let ignored: Vec<String> = ignored.iter().map(|name| (*name).to_owned()).collect();
        findings(seen, &ignored).iter().map(|one| (one.severity, one.to_string())).collect()
    }

    async fn seen(cluster: &Cluster, settings: Option<&Object>) -> Seen {
        let (spec, paths) = (crate::testing::spec(), Paths::new("/nonexistent"));
        let site = Site { paths: &paths, spec: &spec };
        see_cluster(Api { cluster, site }, settings).await.unwrap()
    }

    #[tokio::test]
    async fn a_cluster_that_is_well_has_no_findings_and_one_that_is_not_has_kubeadms() {
        let well = Cluster { nodes: vec![node("cp1", "True")], refuses: false, away: false };
        assert_eq!(texts(&seen(&well, None).await, &[]), []);
        let nodes = vec![
            node("cp1", "True"),
            node("cp2", "False"),
            node("cp3", "Unknown"),
            json!({"metadata": {"name": "cp4", "labels": {"node-role.kubernetes.io/control-plane": ""}}}),
            json!({"metadata": {"name": "worker"}}),
        ];
        let ill = Cluster { nodes, refuses: true, away: false };
        let map = coredns::objects(&crate::testing::spec()).unwrap();
        let map = Object::new(&map.config_map);
        let ill = seen(&ill, Some(&map)).await;
        let job = "CreateJob: the cluster takes no Job: denied by policy".to_owned();
        let nodes =
            "ControlPlaneNodesReady: there are NotReady control-planes in the cluster: cp2, cp3, cp4".to_owned();
        let plugins = "CoreDNSUnsupportedPlugins: the Corefile has plugins that are not supported: mine".to_owned();
        use Severity::{Error, Warning};
        let all = [(Error, job.clone()), (Error, nodes.clone()), (Error, plugins.clone())];
        assert_eq!(texts(&ill, &[]), all);
        let ignored = ["createjob", "ControlPlaneNodesReady"];
        assert_eq!(texts(&ill, &ignored), [(Warning, job), (Warning, nodes), (Error, plugins)]);
        assert!(texts(&ill, &["all"]).iter().all(|(severity, _)| *severity == Warning));
    }

    #[tokio::test]
    async fn kubelets_that_are_too_old_are_named_and_may_be_ignored() {
        let with = |name: &str, kubelet: &str| {
            let mut node = node(name, "True");
            node["status"]["nodeInfo"] = json!({"kubeletVersion": kubelet});
            node
        };
        let nodes =
            vec![with("cp1", "v1.34.0"), with("worker1", "v1.32.9"), with("worker2", "v1.20.2"), with("x", "?")];
        let old = seen(&Cluster { nodes, refuses: false, away: false }, None).await;
        let words = "KubeletVersion: the new control plane does not go with kubelets that are so old; install newer ones \
                     first: worker1 (v1.32.9), worker2 (v1.20.2)";
        assert_eq!(texts(&old, &[]), [(Severity::Error, words.to_owned())]);
        assert_eq!(texts(&old, &["KubeletVersion"]), [(Severity::Warning, words.to_owned())]);
    }

    #[tokio::test]
    async fn nodes_that_cannot_be_listed_are_not_taken_for_ready() {
        let away = Cluster { nodes: vec![], refuses: false, away: true };
        let words = "ControlPlaneNodesReady: the nodes of the control plane cannot be listed: connection refused";
        assert_eq!(texts(&seen(&away, None).await, &[]), [(Severity::Error, words.to_owned())]);
    }

    #[test]
    fn manifests_that_are_missing_are_named() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let put = |name: &str| {
            let path = root.path().join("etc/kubernetes/manifests").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            crate::host::fs::write_file(&path, b"x", 0o600).unwrap();
        };
        put("kube-apiserver.yaml");
        put("kube-scheduler.yaml");
        let words = "StaticPodManifest: this machine does not have every manifest of a control plane, which is upgraded \
                     where it runs; not there: /etc/kubernetes/manifests/kube-controller-manager.yaml";
        assert_eq!(texts(&see_files(&paths), &[]), [(Severity::Error, words.to_owned())]);
        put("kube-controller-manager.yaml");
        assert_eq!(texts(&see_files(&paths), &[]), [], "etcd may be elsewhere");
    }
}
