use super::*;
use crate::agent::options::{ConfigFile, Flags, NodeFlags, resolve, unknown_fields};

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn options(file: &str) -> AgentOptions {
    let node = NodeFlags { kubeconfig: Some("/k".into()), ..NodeFlags::default() };
    let file = ConfigFile::main("/var/lib/kubelet/config.yaml".into(), file.to_owned());
    resolve(&Flags { node, ..Flags::default() }, &[file], "n").unwrap().options
}

#[test]
fn the_configuration_is_the_kubelets_and_says_no_password() {
    let mut options = AgentOptions::new("n");
    options.static_pod_path = Some("/m".into());
    options.static_pod_url_headers = vec![("Authorization".into(), "secret".into())];
    let config = effective(&options);
    assert_eq!(config["staticPodPath"], "/m");
    assert_eq!((&config["syncFrequency"], &config["cpuCFSQuotaPeriod"]), (&json!("1m0s"), &json!("100ms")));
    assert_eq!((&config["readOnlyPort"], &config["healthzPort"]), (&json!(0), &json!(10248)));
    assert_eq!((&config["containerLogMaxSize"], &config["podPidsLimit"]), (&json!("10Mi"), &json!(-1)));
    assert_eq!(config["serializeImagePulls"], true);
    assert!(config.get("staticPodURL").is_none());
    assert!(!config.to_string().contains("secret"));
}

/// What a real kubelet 1.36.2 prints that was given a directory, a port and nothing else, but for what is its machine's.
#[test]
fn nothing_is_missing_that_a_kubelet_prints() {
    for (field, _) in table::fields() {
        assert!(serde_json::from_str::<Value>(field.default).is_ok(), "{}: {}", field.name, field.default);
    }
    let printed = effective(&options(&format!("{HEAD}staticPodPath: /m\n")));
    let at = |name: &str| printed.pointer(&format!("/{}", name.replace('.', "/")));
    let defaults = table::fields().map(|(field, _)| (field.name, field.default));
    let missing: Vec<_> = defaults.filter(|(name, default)| *default != "null" && at(name).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(
        (&printed["enableServer"], &printed["port"], &printed["address"]),
        (&json!(true), &json!(10250), &json!("0.0.0.0"))
    );
    assert_eq!(printed["authentication"]["webhook"], json!({"enabled": true, "cacheTTL": "2m0s"}));
    assert_eq!(printed["evictionHard"]["memory.available"], "100Mi");
    assert!(
        printed.as_object().unwrap().len() >= 80,
        "a kubelet prints about so many: {}",
        printed.as_object().unwrap().len()
    );
    let mut all = Map::new();
    table::fields().for_each(|(field, _)| place(&mut all, field.name, json!("")));
    assert!(unknown_fields(&Value::Object(all.clone())).is_empty(), "each is one of the type");
    let whole = ["allowedUnsafeSysctls", "userNamespaces", "tracing", "maxOpenFiles", "clusterDNS", "cgroupRoot"];
    assert!(whole.iter().all(|name| all.contains_key(*name)));
}

#[test]
fn what_is_read_changed_in_one_field_and_written_back_changes_that_field_alone() {
    let file = format!(
        "{HEAD}staticPodPath: /m\naddress: 10.0.0.1\nport: 99\nreadOnlyPort: 98\nclusterDNS: [10.96.0.10]\n\
         clusterDomain: cluster.local\nrotateCertificates: true\nserverTLSBootstrap: true\n\
         authentication: {{x509: {{clientCAFile: /ca}}, webhook: {{cacheTTL: 7s}}, anonymous: {{enabled: true}}}}\n\
         tlsMinVersion: VersionTLS13\ntlsCipherSuites: [A]\ntlsCertFile: /c\ntlsPrivateKeyFile: /p\n\
         registerWithTaints: [{{key: a, effect: NoSchedule}}]\nmaxParallelImagePulls: 3\nserializeImagePulls: false\n\
         systemReserved: {{cpu: 100m}}\nkubeReserved: {{cpu: 200m, memory: 1Gi}}\nnodeStatusMaxImages: -1\n\
         nodeStatusUpdateFrequency: 4s\ncontainerLogMaxSize: '-1'\npodPidsLimit: 50\nhealthzPort: 0\n\
         resolvConf: /r\ncgroupRoot: /x\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
         evictionHard: {{memory.available: 200Mi}}\nfeatureGates: {{Some: true}}\nkubeAPIQPS: 7\n\
         logging: {{verbosity: 4}}\nproviderID: p\nallowedUnsafeSysctls: [kernel.msg*]\n\
         cpuManagerReconcilePeriod: 0s\neventBurst: 0\nregistryPullQPS: 0\n"
    );
    let before = options(&file);
    let mut printed = effective(&before);
    assert_eq!(printed["logging"]["flushFrequency"], "5s");
    assert_eq!((&printed["logging"]["verbosity"], &printed["kubeAPIQPS"]), (&json!(4), &json!(7)));
    assert_eq!(printed["evictionHard"], json!({"memory.available": "200Mi"}));
    let zeros = ["cpuManagerReconcilePeriod", "eventBurst", "registryPullQPS"].map(|name| printed[name].clone());
    assert_eq!(zeros, [json!("10s"), json!(100), json!(0)], "some zeros stand for the default");
    let again = options(&crate::yaml::to_string(&printed).unwrap());
    assert_eq!(
        AgentOptions { written: Map::new(), ..again.clone() },
        AgentOptions { written: Map::new(), ..before.clone() }
    );
    assert_eq!(effective(&again), printed);
    printed["maxPods"] = json!(7);
    let changed = options(&printed.to_string());
    assert_eq!(changed.node.max_pods, 7);
    assert_eq!((changed.server, changed.read_only), (before.server, before.read_only));
}

#[test]
fn an_address_that_was_not_set_is_not_said_where_it_would_open_the_read_only_port() {
    let before = options(&format!("{HEAD}staticPodPath: /m\nreadOnlyPort: 98\n"));
    let again = options(&effective(&before).to_string());
    assert_eq!(again.read_only, before.read_only);
    assert!(again.read_only.unwrap().ip().is_loopback());
}
