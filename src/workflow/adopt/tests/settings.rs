use serde_json::json;

use super::*;
use crate::cluster::object::Object;
use crate::config::spec::KeyAlgorithm;
use crate::event::Event;
use crate::host::paths::{KUBELET_FLAGS_ENV, TMP_DIR};
use crate::host::tree::{HostTree, Tree};
use crate::release::UpgradePolicy;
use crate::workflow::state::State;
use crate::workflow::state::saved::Saved;
use crate::workflow::upgrade::prepare::{Goal, PrepareError, Prepared, prepare};
use crate::workflow::upgrade::table::{PHASES, SelectedPhases};

const CLUSTER: &str = "apiServer: {}
apiVersion: kubeadm.k8s.io/v1beta4
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {extraArgs: [{name: v, value: '2'}]}
dns: {}
encryptionAlgorithm: RSA-3072
etcd: {local: {dataDir: /srv/etcd}}
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
networking: {dnsDomain: cluster.local, serviceSubnet: 10.50.0.0/16}
proxy: {}
scheduler: {}
";
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 77\n\
    staticPodPath: /etc/kubernetes/manifests\ncontainerRuntimeEndpoint: ''\n";

fn config_map(name: &str, data: serde_json::Value) -> Object {
    let metadata = json!({"name": name, "namespace": "kube-system"});
    let map = json!({"metadata": metadata, "data": data});
    Object::new(&serde_json::from_value::<k8s_openapi::api::core::v1::ConfigMap>(map).unwrap())
}

/// The node, in a cluster with these settings.
async fn node_in(cluster: &str, others: Vec<Object>) -> Bench {
    let (bench, _) = node();
    let machine = bench.machine();
    let spec = crate::testing::spec();
    let site = crate::workflow::machine::cluster::Site { paths: &machine.paths, spec: &spec };
    let cluster = config_map("kubeadm-config", json!({"ClusterConfiguration": cluster}));
    machine.cluster.apply(site, &[vec![cluster], others].concat()).await.unwrap();
    bench
}

fn kubelet_config(name: &str) -> Object {
    config_map(name, json!({"kubelet": KUBELET}))
}

fn saved(bench: &Bench) -> Option<Saved> {
    Saved::read(&*bench.machine().tree).unwrap()
}

fn upgrade(bench: &Bench) -> Result<Prepared, PrepareError> {
    let goal = Goal {
        version: Some("v1.36.3".parse().unwrap()),
        images: vec![],
        patches_dir: None,
        etcd: true,
        certificates: true,
        policy: UpgradePolicy { force: true, ..UpgradePolicy::default() },
        parts: SelectedPhases::of(&PHASES, &[]).unwrap(),
    };
    prepare(&bench.machine().paths, &goal)
}

fn warnings(bench: &Bench) -> Vec<String> {
    let of = |event: Event| match event {
        Event::Warning { text, .. } => Some(text),
        _ => None,
    };
    bench.world.events().into_iter().filter_map(of).filter(|text| text.contains("configuration")).collect()
}

#[tokio::test]
async fn a_node_that_was_taken_over_is_upgraded_with_the_configuration_of_its_cluster() {
    let bench = node_in(CLUSTER, vec![kubelet_config("kubelet-config")]).await;
    let root = bench.root.path();
    write_file(&root.join(&KUBELET_FLAGS_ENV[1..]), b"KUBELET_KUBEADM_ARGS=\"--hostname-override=cp7 --v=4\"\n", 0o644)
        .unwrap();
    adopt(&bench, &Pods::of(&bench)).await.unwrap();
    assert_eq!(warnings(&bench), Vec::<String>::new());
    let (spec, said) = saved(&bench).unwrap().spec().unwrap();
    assert_eq!(said, Vec::<String>::new());
    assert_eq!((spec.kubernetes_version.to_string().as_str(), spec.node.name.as_str()), ("v1.36.2", "cp7"));
    assert_eq!(spec.local_endpoint().to_string(), "10.0.0.7:7443");
    assert_eq!(spec.key_algorithm, KeyAlgorithm::Rsa3072);
    assert_eq!(spec.etcd.local().unwrap().data_dir, Path::new("/srv/etcd"));
    let prepared = upgrade(&bench).unwrap();
    assert_eq!(prepared.steps.iter().map(|step| step.component).collect::<Vec<_>>(), COMPONENTS);
    // The kubelet's flags and its runtime are its own.
    let files: Vec<_> = prepared.files.iter().map(|file| file.path.display().to_string()).collect();
    assert_eq!(files, ["/var/lib/kubeboot/input.json", KUBELET_CONFIG]);
    let config = String::from_utf8_lossy(&prepared.files[1].content).into_owned();
    assert!(
        config.contains("maxPods: 77") && config.contains("containerRuntimeEndpoint: unix:///run/c.sock"),
        "{config}"
    );
    // Once they are written there is nothing new in them.
    write_file(&root.join(&KUBELET_CONFIG[1..]), config.replace("maxPods: 77", "maxPods:  77").as_bytes(), 0o644)
        .unwrap();
    let files: Vec<_> = upgrade(&bench).unwrap().files.into_iter().map(|file| file.path).collect();
    assert_eq!(files, [Path::new("/var/lib/kubeboot/input.json")]);

    // What the cluster says now is taken in by the next adopt.
    let machine = bench.machine();
    let spec = crate::testing::spec();
    let site = crate::workflow::machine::cluster::Site { paths: &machine.paths, spec: &spec };
    let newer = config_map("kubeadm-config", json!({"ClusterConfiguration": CLUSTER.replace("RSA-3072", "RSA-4096")}));
    machine.cluster.apply(site, &[newer]).await.unwrap();
    assert_eq!(adopt(&bench, &Pods::of(&bench)).await.unwrap(), Outcome::AlreadyAdopted);
    assert_eq!(saved(&bench).unwrap().spec().unwrap().0.key_algorithm, KeyAlgorithm::Rsa4096);
}

#[tokio::test]
async fn a_configuration_of_kubeadm_1_20_is_read_with_that_kubeadms_kind_of_keys() {
    let old = CLUSTER
        .replace("v1beta4", "v1beta2")
        .replace("apiServer: {}", "apiServer: {timeoutForControlPlane: 4m0s}")
        .replace("extraArgs: [{name: v, value: '2'}]", "extraArgs: {v: '2'}")
        .replace("encryptionAlgorithm: RSA-3072\n", "")
        .replace("proxy: {}\n", "")
        .replace("dns: {}", "dns: {type: CoreDNS}\nuseHyperKubeImage: false")
        .replace("v1.36.2", "v1.20.2");
    let bench = node_in(&old, vec![kubelet_config("kubelet-config-1.20")]).await;
    adopt(&bench, &Pods::of(&bench)).await.unwrap();
    assert_eq!(warnings(&bench), Vec::<String>::new());
    let (spec, said) = saved(&bench).unwrap().spec().unwrap();
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(spec.key_algorithm, KeyAlgorithm::Rsa2048);
    assert_eq!(spec.kubelet["maxPods"], 77);
}

#[tokio::test]
async fn a_cluster_that_does_not_say_is_warned_of_and_an_upgrade_says_what_to_do() {
    let (bench, _) = node();
    assert_eq!(adopt(&bench, &Pods::of(&bench)).await.unwrap(), Outcome::Adopted);
    let said = warnings(&bench);
    assert!(
        said[0].contains("no ConfigMap kube-system/kubeadm-config") && said[0].contains("adopt` again"),
        "{said:?}"
    );
    assert!(saved(&bench).is_none());
    assert!(matches!(upgrade(&bench), Err(PrepareError::NotRead)));
}

#[tokio::test]
async fn what_an_upgrade_makes_stays_when_the_node_is_given_back() {
    let bench = node_in(CLUSTER, vec![]).await;
    let pods = Pods::of(&bench);
    adopt(&bench, &pods).await.unwrap();
    let paths = bench.machine().paths;
    let mut state = State::open(&paths).unwrap().unwrap();
    let made = [MANIFESTS_DIR, TMP_DIR].map(|dir| Path::new(dir).join("backup/etcd.yaml"));
    let mut tree = HostTree::new(paths.clone(), Some(&mut state.inventory));
    for path in &made {
        tree.write(path, b"x", 0o600).unwrap();
    }
    drop(state);
    give_back(&mut bench.machine(), &pods).await.unwrap();
    for path in &made {
        assert!(paths.on_host(path).exists(), "{}", path.display());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_given_back_when_its_api_server_does_what_an_administrator_asks() {
    let mut asked = None;
    for failing in [false, true] {
        let (bench, _) = node();
        let pods = Pods::of(&bench);
        write_file(&bench.root.path().join("etc/kubernetes/admin.conf"), b"x", 0o600).unwrap();
        adopt(&bench, &pods).await.unwrap();
        let before = bench.world.calls().len();
        if let Some(at) = asked.filter(|_| failing) {
            bench.world.fail_at(at);
        }
        give_back(&mut bench.machine(), &pods).await.unwrap();
        let calls = bench.world.calls().split_off(before);
        asked = calls.iter().position(|call| *call == "list_nodes").map(|at| at + 1);
        assert_eq!(calls.iter().filter(|call| **call == "list_nodes").count(), 1 + usize::from(failing), "{calls:?}");
    }
}
