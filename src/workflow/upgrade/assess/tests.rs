use std::path::PathBuf;

use serde_json::json;

use super::super::run::tests::{NEW, made, made_with, parts, request};
use super::super::run::{Upgrade, assess};
use super::*;
use crate::testing::machine::Bench;
use crate::workflow::upgrade::table::{PHASES, SelectedPhases};

fn to(version: &str) -> Request {
    let mut request = request(&[]);
    request.goal.version = Some(version.parse().unwrap());
    request.command = format!("kubeboot upgrade apply {version}");
    request.warnings.clear();
    request
}

async fn seen(bench: &Bench, request: &Request) -> Assessment {
    assess(&bench.machine().paths, &parts(bench), request, true).await.unwrap().1
}

fn errors(found: &Assessment) -> Vec<&str> {
    let errors = found.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.check.as_str()).collect()
}

fn node(name: &str, kubelet: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "status": {"nodeInfo": {"kubeletVersion": kubelet}, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

const DEPRECATED: &str = "apiserver_requested_deprecated_apis{group=\"storage.k8s.io\",removed_release=\"1.37\",\
                          resource=\"volumeattributesclasses\",subresource=\"\",version=\"v1beta1\"} 1\n";

#[tokio::test(start_paused = true)]
async fn a_plan_names_what_runs_what_would_be_and_what_is_missing() {
    let bench = made().await;
    bench.world.has_nodes(vec![node("cp1", "v1.36.2"), node("w1", "v1.34.0")]);
    bench.world.has_metrics(DEPRECATED);
    let found = seen(&bench, &to("v1.37.1")).await;
    assert_eq!(errors(&found), Vec::<&str>::new(), "{:?}", found.findings);
    assert_eq!((found.running.as_deref(), found.target.as_deref()), (Some("v1.36.2"), Some("v1.37.1")));
    let server = found.components.iter().find(|one| one.name == "kube-apiserver").unwrap();
    assert_eq!(server.current_version.as_deref(), Some("v1.36.2"));
    assert_eq!((server.target_version.as_deref(), server.replaced), (Some("v1.37.1"), true));
    assert_eq!(server.image_present, Some(false), "the image of the next version was never pulled");
    assert_eq!((found.nodes.len(), found.files.len()), (2, 0), "what only this program reads is no file of the node's");
    let etcd = found.etcd.unwrap();
    assert_eq!(
        (etcd.replaced, etcd.goes_back, etcd.data_opened_by.as_slice()),
        (true, true, ["3.6".to_owned(), "3.7".into()].as_slice())
    );
    assert_eq!(found.addons.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["CoreDNS", "kube-proxy"]);
    let api = found.findings.iter().find(|one| one.check == "DeprecatedAPIs").unwrap();
    assert!(
        api.message.starts_with("volumeattributesclasses.v1beta1.storage.k8s.io has been called"),
        "{}",
        api.message
    );
}

#[tokio::test(start_paused = true)]
async fn everything_that_stands_in_the_way_is_found_at_once() {
    let file = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\napiServer:\n  \
                extraArgs:\n  - {name: feature-gates, value: \"AnyVolumeDataSource=true\"}\netcd:\n  local:\n    extraArgs:\n    \
                - {name: experimental-corrupt-check-time, value: 1h}\n";
    let bench = made_with(Some((PathBuf::from("config.yaml"), file.to_owned()))).await;
    bench.world.has_nodes(vec![node("cp1", "v1.36.2"), node("old", "v1.33.1"), node("new", "v1.38.0")]);
    let found = seen(&bench, &to("v1.37.1")).await;
    assert_eq!(errors(&found), ["RemovedFlags", "RemovedFeatureGates", "KubeletVersion"], "{:?}", found.findings);
    assert!(found.is_blocked());
    assert!(
        found.findings.iter().any(|one| one.severity == Severity::Warning && one.message.ends_with("support: new"))
    );
    let ignoring = Request { ignored: vec!["all".into()], ..to("v1.37.1") };
    assert!(!seen(&bench, &ignoring).await.is_blocked());
    // The same stops `upgrade apply` before anything is touched.
    let refused = |request: Request| Upgrade::prepare(&bench.machine().paths, parts(&bench), request).map(drop);
    let error = refused(to("v1.37.1")).unwrap_err().to_string();
    assert!(error.contains("[ERROR RemovedFlags]") && error.contains("[ERROR RemovedFeatureGates]"), "{error}");
    refused(Request { ignored: vec!["RemovedFlags".into(), "RemovedFeatureGates".into()], ..to("v1.37.1") }).unwrap();
    // And the preflight by itself.
    let alone = || {
        let mut request = to("v1.37.1");
        (request.one_phase, request.goal.parts) = (true, SelectedPhases::one(&PHASES, "preflight", None).unwrap());
        request
    };
    let error = refused(alone()).unwrap_err().to_string();
    assert!(error.contains("[ERROR RemovedFlags]") && error.contains("[ERROR RemovedFeatureGates]"), "{error}");
    refused(Request { ignored: vec!["RemovedFlags".into(), "RemovedFeatureGates".into()], ..alone() }).unwrap();
    let same = seen(&bench, &to("v1.36.4")).await;
    assert!(!errors(&same).contains(&"RemovedFeatureGates"), "1.36 still has the gate: {:?}", same.findings);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_may_not_follow_is_a_finding_among_the_others() {
    let bench = made().await;
    let found = seen(&bench, &to("v1.38.0")).await;
    assert_eq!(errors(&found), ["KubernetesVersion"]);
    assert_eq!(found.components.len(), 4);
    let skipping = seen(&bench, &to("v1.34.1")).await;
    assert!(skipping.findings[0].message.contains("more than one minor version"), "{:?}", skipping.findings);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_is_said_once() {
    let bench = made().await;
    bench.world.fail_at(1);
    let found = seen(&bench, &to("v1.36.4")).await;
    assert_eq!(errors(&found), ["ControlPlaneNodesReady"]);
    assert!(found.nodes.is_empty() && found.addons.is_empty());
    bench.world.fail_at(1);
    let looking = seen(&bench, &request(&[])).await;
    assert!(!looking.is_blocked(), "images alone are replaced without it: {:?}", looking.findings);
    assert_eq!(looking.findings.iter().filter(|finding| finding.check == "ControlPlaneNodesReady").count(), 1);
    let elsewhere = assess(&bench.machine().paths, &parts(&bench), &to("v1.36.4"), false).await.unwrap().1;
    assert!(!elsewhere.is_blocked() && elsewhere.components.iter().all(|one| one.image_present.is_none()));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_here_and_may_not_be_pulled_stands_in_the_way() {
    let bench = made().await;
    let request = Request { pull_policy: Some(PullPolicy::Never), ..request(&[&format!("kube-scheduler={NEW}")]) };
    let found = seen(&bench, &request).await;
    assert_eq!(errors(&found), ["ImagePull"]);
    assert_eq!(found.findings[0].message, format!("not on this machine, and imagePullPolicy is Never: {NEW}"));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_was_cut_off_stands_in_the_way_of_another() {
    let bench = made().await;
    let paths = bench.machine().paths;
    let mut tree = crate::host::tree::HostTree::new(paths, crate::host::tree::NoRecord);
    Journal::new("kubeboot upgrade apply v1.36.3", "kubeboot upgrade apply v1.36.3", "/b".into())
        .write(&mut tree)
        .unwrap();
    assert_eq!(errors(&seen(&bench, &to("v1.36.4")).await), ["UnfinishedUpgrade"]);
    assert_eq!(errors(&seen(&bench, &to("v1.36.3")).await), Vec::<&str>::new(), "the same one goes on");
}
