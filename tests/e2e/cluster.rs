//! What init makes in the cluster: all that a joining node asks for, and the same after an init that was killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::addons::settled;
use crate::machine::*;

const TOKEN: &str = "abcdef.0123456789abcdef";

/// `(namespace, resource)` of what is made for joining nodes, by the names that kubeadm and the kubelet ask for.
const OBJECTS: &[(&str, &str)] = &[
    ("kube-system", "configmap/kubeadm-config"),
    ("kube-system", "configmap/kubelet-config-1.20"),
    ("kube-public", "configmap/cluster-info"),
    ("kube-system", "configmap/coredns"),
    ("kube-system", "deployment/coredns"),
    ("kube-system", "service/kube-dns"),
    ("kube-system", "serviceaccount/coredns"),
    ("kube-system", "configmap/kube-proxy"),
    ("kube-system", "daemonset/kube-proxy"),
    ("kube-system", "serviceaccount/kube-proxy"),
    ("kube-system", "secret/kubeadm-certs"),
    ("kube-system", "secret/bootstrap-token-abcdef"),
    ("kube-system", "role/kubeadm:nodes-kubeadm-config"),
    ("kube-system", "rolebinding/kubeadm:nodes-kubeadm-config"),
    ("kube-system", "role/kubeadm:kubelet-config-1.20"),
    ("kube-system", "rolebinding/kubeadm:kubelet-config-1.20"),
    ("kube-system", "role/kubeadm:kubeadm-certs"),
    ("kube-system", "rolebinding/kubeadm:kubeadm-certs"),
    ("kube-system", "role/kube-proxy"),
    ("kube-system", "rolebinding/kube-proxy"),
    ("kube-public", "role/kubeadm:bootstrap-signer-clusterinfo"),
    ("kube-public", "rolebinding/kubeadm:bootstrap-signer-clusterinfo"),
    ("", "clusterrole/kubeadm:get-nodes"),
    ("", "clusterrolebinding/kubeadm:get-nodes"),
    ("", "clusterrolebinding/kubeadm:kubelet-bootstrap"),
    ("", "clusterrolebinding/kubeadm:node-autoapprove-bootstrap"),
    ("", "clusterrolebinding/kubeadm:node-autoapprove-certificate-rotation"),
    ("", "clusterrolebinding/kubeadm:cluster-admins"),
    ("", "clusterrolebinding/kubeadm:node-proxier"),
    ("", "clusterrole/system:coredns"),
    ("", "clusterrolebinding/system:coredns"),
];

/// The version of each of [`OBJECTS`].
fn versions() -> BTreeMap<&'static str, String> {
    let version = |(namespace, resource): &(&str, &'static str)| {
        let path = "jsonpath={.metadata.resourceVersion}";
        (*resource, kubectl(&["-n", namespace, "get", resource, "-o", path]).ok())
    };
    OBJECTS.iter().map(version).collect()
}

/// The values of the config map that anybody may read.
fn cluster_info() -> BTreeMap<String, String> {
    let text = kubectl(&["-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data}"]).ok();
    serde_json::from_str(&text).unwrap()
}

/// RFC 7515, appendix F: a compact JWS whose payload is carried apart.
#[track_caller]
fn verify_detached(jws: &str, payload: &str, id: &str, secret: &str) {
    let (header, signature) = jws.split_once("..").unwrap();
    let said: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!((&said["alg"], &said["kid"]), (&"HS256".into(), &id.into()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

pub fn init_gives_the_cluster_what_joining_nodes_need() {
    ready();
    let args = ["init", "--kubernetes-version", VERSION, "--token", TOKEN, "--upload-certs"];
    let _plane = ControlPlane;
    let said = kubeboot(&args).ok();

    let pin =
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt | openssl pkey -pubin -outform der | sha256sum";
    let pin = run("sh", &["-c", pin]).ok();
    let pin = format!("sha256:{}", pin.split(' ').next().unwrap());
    let server = kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let endpoint = server.trim_start_matches("https://");
    let words: Vec<&str> = said.split_whitespace().filter(|word| *word != "\\").collect();
    let join = ["kubeadm", "join", endpoint, "--token", TOKEN, "--discovery-token-ca-cert-hash", &pin];
    assert!(words.windows(join.len()).any(|w| w == join), "{join:?} in\n{said}");

    let signature = eventually("signature of cluster-info", Duration::from_secs(60), || {
        cluster_info().remove("jws-kubeconfig-abcdef")
    });
    let (id, secret) = TOKEN.split_once('.').unwrap();
    let kubeconfig = cluster_info().remove("kubeconfig").unwrap();
    assert!(kubeconfig.contains(&format!("server: {server}\n")), "{kubeconfig}");
    verify_detached(&signature, &kubeconfig, id, secret);

    // The controller manager takes away what has expired, and its signature.
    let short = kubeboot(&["token", "create", "--ttl", "3s", "--kubeconfig", ADMIN_CONF]).ok();
    let name = format!("secret/bootstrap-token-{}", short.trim().split_once('.').unwrap().0);
    kubectl(&["-n", "kube-system", "wait", "--for=delete", &name, "--timeout=60s", "--request-timeout=70s"]).ok();
    eventually("only the signature of the token that is left", Duration::from_secs(30), || {
        cluster_info().keys().eq(["jws-kubeconfig-abcdef", "kubeconfig"]).then_some(())
    });

    settled();
    let before = versions();
    let again = kubeboot(&args).code(0);
    assert!(again.contains("initialized before"), "{again}");
    assert_eq!(versions(), before, "a second init writes nothing");
}

/// A configuration that people use.
struct Case {
    name: &'static str,
    /// The documents; `DIR` is a directory of the test.
    yaml: &'static str,
    /// Lines of the ClusterConfiguration that the cluster then holds.
    holds: &'static [&'static str],
    /// What else must be seen.
    check: fn(),
}

const CASES: &[Case] = &[
    Case {
        name: "defaults",
        yaml: "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
",
        holds: &["kubernetesVersion: v1.20.2", "clusterName: kubernetes", "serviceSubnet: 10.96.0.0/12"],
        check: || assert_eq!(service_address(), "10.96.0.10"),
    },
    Case {
        name: "networks, names",
        yaml: "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
networking: {podSubnet: 10.210.0.0/16, serviceSubnet: 10.50.0.0/16, dnsDomain: shop.example}
apiServer:
  certSANs: [api.shop.example, 192.0.2.7]
",
        holds: &[
            "podSubnet: 10.210.0.0/16",
            "serviceSubnet: 10.50.0.0/16",
            "dnsDomain: shop.example",
            "- api.shop.example",
            "- 192.0.2.7",
        ],
        check: || {
            assert_eq!(service_address(), "10.50.0.10");
            let text = openssl("apiserver.crt", &["-text"]).ok();
            let names = ["DNS:api.shop.example", "IP Address:192.0.2.7", "DNS:kubernetes.default.svc.shop.example"];
            names.iter().for_each(|name| assert!(text.contains(name), "{name} in {text}"));
        },
    },
    Case {
        name: "keys, validity",
        yaml: "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
clusterName: strong
encryptionAlgorithm: ECDSA-P384
certificateValidityPeriod: 2160h
caCertificateValidityPeriod: 26280h
",
        // The kubeadm of this cluster's version knows neither algorithm nor periods, so the files alone have them.
        holds: &["clusterName: strong"],
        check: || {
            for (file, days) in [("ca.crt", 1095), ("apiserver.crt", 90)] {
                assert!(openssl(file, &["-text"]).ok().contains("secp384r1"), "{file}");
                let ends_within = |days: u32| openssl(file, &["-checkend", &(days * 86_400).to_string()]).code == 1;
                assert!(!ends_within(days - 1) && ends_within(days + 1), "{file}: not {days} days");
            }
        },
    },
    Case {
        name: "kubelet",
        yaml: "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
clusterName: small
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 55
serializeImagePulls: false
",
        holds: &["clusterName: small"],
        check: || {
            let kept = kubectl(&["-n", "kube-system", "get", "configmap", "kubelet-config-1.20", "-o", DATA_KUBELET]);
            let kept = kept.ok();
            let lines: Vec<&str> = kept.lines().collect();
            for line in ["maxPods: 55", "serializeImagePulls: false", "clusterDomain: cluster.local"] {
                assert!(lines.contains(&line), "{line} in {kept}");
            }
        },
    },
    Case {
        name: "arguments, patches",
        yaml: "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
patches: {directory: DIR/patches}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
apiServer:
  extraArgs: [{name: event-ttl, value: 2h}]
controllerManager:
  extraArgs: [{name: node-monitor-grace-period, value: 20s}]
",
        holds: &["event-ttl: 2h", "node-monitor-grace-period: 20s"],
        check: || {
            assert!(runs_with("kube-apiserver", "--event-ttl=2h"));
            assert!(runs_with("kube-controller-manager", "--node-monitor-grace-period=20s"));
            let manifest = std::fs::read_to_string("/etc/kubernetes/manifests/kube-scheduler.yaml").unwrap();
            assert!(manifest.contains("shop.example/team: tea"), "{manifest}");
        },
    },
    Case {
        name: "external etcd",
        yaml: "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
etcd:
  external: {endpoints: ['http://127.0.0.1:23790'], caFile: '', certFile: '', keyFile: ''}
",
        holds: &["- http://127.0.0.1:23790"],
        check: || {
            assert!(runs_with("kube-apiserver", "--etcd-servers=http://127.0.0.1:23790"));
            assert!(!Path::new("/etc/kubernetes/manifests/etcd.yaml").exists());
        },
    },
];

const DATA_KUBELET: &str = "jsonpath={.data.kubelet}";

/// Where the cluster's DNS listens.
fn service_address() -> String {
    kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}"]).ok()
}

fn openssl(file: &str, args: &[&str]) -> Ran {
    let path = format!("/etc/kubernetes/pki/{file}");
    run("openssl", &[&["x509", "-noout", "-in", &path], args].concat())
}

fn runs_with(component: &str, argument: &str) -> bool {
    processes(component).into_iter().any(|pid| command_line(pid).iter().any(|a| a == argument))
}

/// All objects of the cluster that are kubeadm's, by kind, namespace and name; ids of tokens are random.
fn objects() -> Vec<String> {
    const KINDS: &str =
        "cm,secret,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding,deployment,daemonset,service";
    const LINE: &str = "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.type}{\"\\n\"}{end}";
    const OURS: &[&str] = &["kubeadm", "kubelet-config", "cluster-info", "coredns", "kube-proxy", "/kube-dns"];
    let mut found = Vec::new();
    for line in kubectl(&["get", KINDS, "-A", "-o", LINE]).ok().lines() {
        let (object, kind) = line.rsplit_once(' ').unwrap();
        match kind {
            "bootstrap.kubernetes.io/token" => found.push("Secret kube-system/bootstrap-token-ID".to_owned()),
            "kubernetes.io/service-account-token" => {}
            _ if OURS.iter().any(|name| object.contains(name)) => found.push(object.to_owned()),
            _ => {}
        }
    }
    found.sort();
    found
}

/// What there is of a control plane's own places and containers. (Whole listings of the machine are taken where init is
/// killed at each phase.)
fn traces() -> Vec<String> {
    const PLACES: &[&str] = &[
        "/etc/kubernetes",
        "/etc/cni/net.d",
        "/var/lib/etcd",
        "/var/lib/kubeboot",
        "/var/lib/kubelet",
        "/usr/local/bin/kubeboot",
        "/etc/systemd/system/kubeboot-agent.service",
    ];
    const COMPONENTS: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let places = PLACES.iter().filter(|place| Path::new(place).exists()).map(|place| (*place).to_owned());
    let running = COMPONENTS.iter().filter(|name| containers().contains_key(**name)).map(|name| (*name).to_owned());
    places.chain(running).collect()
}

/// An etcd of the user's own, without TLS; killed when dropped.
struct Etcd {
    child: Child,
    _data: tempfile::TempDir,
}

impl Etcd {
    #[track_caller]
    fn start() -> Self {
        const CLIENTS: &str = "http://127.0.0.1:23790";
        const PEERS: &str = "http://127.0.0.1:23791";
        let cache = std::env::var_os("KUBEBOOT_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/kubeboot"));
        let data = tempfile::tempdir().unwrap();
        let child = Command::new(cache.join("components").join(VERSION).join("etcd"))
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", CLIENTS, "--advertise-client-urls", CLIENTS])
            .args(["--listen-peer-urls", PEERS, "--initial-advertise-peer-urls", PEERS])
            .args(["--initial-cluster", &format!("default={PEERS}")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { child, _data: data };
        eventually("external etcd", Duration::from_secs(20), || {
            run("curl", &["-s", &format!("{CLIENTS}/health")]).stdout.contains("true").then_some(())
        });
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// splitmix64: delays that a seed decides, so that a failure can be had again.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Runs init and kills it after `delay`; the last phase that it began.
fn kill_after(config: &str, delay: Duration) -> String {
    let mut child = Command::new(program())
        .args(["init", "--config", config, "-o", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(delay);
    let _ = child.kill();
    let out = rest(child.stdout.take().unwrap());
    let status = child.wait().unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    assert!(killed || status.success(), "init failed by itself: {status}\n{out}");
    let mut events = out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let begun = events.rfind(|event| event["event"] == "phaseStarted");
    let phase = begun.and_then(|event| event["phase"].as_str().map(str::to_owned)).unwrap_or_else(|| "-".into());
    if killed { phase } else { "(had finished)".into() }
}

/// What a finished init of this case has made in the cluster, after everything else about it was checked.
#[track_caller]
fn checked(case: &Case) -> Vec<String> {
    let path = "jsonpath={.data.ClusterConfiguration}";
    let held = kubectl(&["-n", "kube-system", "get", "configmap", "kubeadm-config", "-o", path]).ok();
    let lines: BTreeSet<String> = held.lines().map(|line| line.trim().replace('"', "")).collect();
    case.holds.iter().for_each(|line| assert!(lines.contains(*line), "{}: {line} in\n{held}", case.name));
    (case.check)();
    let found = objects();
    let tokens = found.iter().filter(|name| name.contains("bootstrap-token")).count();
    assert_eq!(tokens, 1, "{}: {found:#?}", case.name);
    found
}

pub fn an_init_killed_once_converges_to_the_objects_of_an_unkilled_one() {
    ready();
    let seed = std::env::var("KUBEBOOT_SEED").map_or(1, |text| text.parse().unwrap());
    let mut state = seed;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        create(path.as_ref(), text);
        path.to_str().unwrap().to_owned()
    };
    write("patches/kube-scheduler0+merge.yaml", "metadata: {annotations: {shop.example/team: tea}}\n");
    let etcd = Etcd::start();
    let before = traces();
    let configs: Vec<String> = CASES
        .iter()
        .enumerate()
        .map(|(n, case)| write(&format!("{n}.yaml"), &case.yaml.replace("DIR", dir.path().to_str().unwrap())))
        .collect();

    let plane = ControlPlane;
    let started = Instant::now();
    kubeboot(&["init", "--config", &configs[0]]).ok();
    // On a slow machine the later phases begin later, and are to be hit there too.
    let whole = u64::try_from(started.elapsed().as_millis()).unwrap();
    let unkilled = checked(&CASES[0]);
    drop(plane);
    assert!(unkilled.len() > 20, "{unkilled:#?}");
    eprintln!("seed {seed} (KUBEBOOT_SEED); {} objects; init takes {whole} ms", unkilled.len());

    for (case, config) in CASES.iter().zip(&configs) {
        let delay = Duration::from_millis(300 + random(&mut state) % whole);
        let plane = ControlPlane;
        let phase = kill_after(config, delay);
        eprintln!("{:20} killed after {:>4} ms in {phase}", case.name, delay.as_millis());
        let started = Instant::now();
        kubeboot(&["init", "--config", config]).ok();
        let took = started.elapsed().as_secs_f32();
        assert_eq!(checked(case), unkilled, "{}", case.name);
        drop(plane);
        assert_eq!(traces(), before, "{}", case.name);
        eprintln!("{:20} finished in {took:.1} s with the same objects; nothing left", "");
    }
    drop(etcd);
}
