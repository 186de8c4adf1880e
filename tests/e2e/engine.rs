//! What runs the containers: this machine's Docker Engine, or the containerd that `KUBEBOOT_TEST_CRI` names.

use std::collections::BTreeSet;
use std::path::Path;

use kubeboot::testing::real::cri::{ctr, import, socket};

use crate::machine::*;

/// CoreDNS has to be scheduled, however full the disk of the machine is that the tests run on: below 10% of free bytes the
/// Node would be tainted, as a kubelet's is.
const CONTAINERDS: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {criSocket: 'unix://SOCKET'}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: VERSION
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {nodefs.available: 1Mi, nodefs.inodesFree: '10', memory.available: 1Mi}
";

/// A container runtime.
#[derive(Debug, Clone)]
pub enum Engine {
    /// Docker.
    Docker,
    /// containerd, at this path.
    Containerd(String),
}

impl Engine {
    /// The tests' containerd; None where they are not to use one.
    pub fn containerd() -> Option<Self> {
        socket().map(Self::Containerd)
    }

    /// A control plane of the test version on this runtime: the shared one, or one of containerd's own.
    #[track_caller]
    pub fn plane(&self) -> (Option<Shared>, Option<ControlPlane>) {
        let Self::Containerd(socket) = self else { return (Some(Shared::plane()), None) };
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yaml");
        let text = CONTAINERDS.replace("SOCKET", socket).replace("VERSION", VERSION);
        create(&config, text);
        (None, Some(ControlPlane::init_as(&["--config", config.to_str().unwrap()])))
    }

    /// Brings images over that Docker has.
    pub fn bring(&self, images: &[&str]) {
        if let Self::Containerd(socket) = self {
            import(socket, images);
        }
    }

    /// Ids of all containers of this name, and with `pod` of that pod alone, whether they run or not.
    pub fn containers(&self, container: &str, pod: Option<&str>) -> BTreeSet<String> {
        let labels = [Some(("container", container)), pod.map(|pod| ("pod", pod))];
        let labels = labels.into_iter().flatten().map(|(kind, name)| (format!("io.kubernetes.{kind}.name"), name));
        let listed = match self {
            Self::Docker => {
                let filters = labels.map(|(label, name)| format!("--filter=label={label}={name}"));
                let all: Vec<String> =
                    ["ps", "-aq", "--no-trunc"].map(str::to_owned).into_iter().chain(filters).collect();
                run("docker", &all.iter().map(String::as_str).collect::<Vec<_>>()).ok()
            }
            Self::Containerd(socket) => {
                let filters: Vec<String> = labels.map(|(label, name)| format!("labels.{label:?}=={name}")).collect();
                ctr(socket, &["containers", "ls", "-q", &filters.join(",")])
            }
        };
        listed.split_whitespace().map(str::to_owned).collect()
    }

    /// What kubectl exits with when a program is not there: Docker gives such a command an exit code, CRI an error.
    pub fn code_of_a_missing_program(&self) -> i32 {
        match self {
            Self::Docker => 126,
            Self::Containerd(_) => 1,
        }
    }
}

/// What pods leave in containerd and in the system where somebody forgets them: containers, processes, mounts, networks
/// and what leads to their ports.
pub fn traces(socket: &str) -> BTreeSet<String> {
    let lines = |what: &str, text: String, of_pods: &dyn Fn(&str) -> bool| -> Vec<String> {
        text.lines().filter(|line| of_pods(line)).map(|line| format!("{what}: {line}")).collect()
    };
    let state = Path::new(socket).parent().unwrap().display().to_string();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let networks = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let networks: String = networks.map(|entry| format!("{}\n", entry.file_name().display())).collect();
    [
        lines("container", ctr(socket, &["containers", "ls", "-q"]), &|_| true),
        lines("task", ctr(socket, &["tasks", "ls", "-q"]), &|_| true),
        lines("mount", mounts, &|line| [&state, "/netns/", "/kubelet/"].iter().any(|part| line.contains(*part))),
        lines("network", networks, &|_| true),
        // Those of one pod; CNI keeps some for all. A chain without a rule does nothing: the plugin leaves one behind when
        // two pods' networks go in the same moment and iptables is busy.
        lines("rule", run("iptables", &["-t", "nat", "-S"]).ok(), &|line| {
            let of_a_pod = |word: &str| word.starts_with("CNI-") && !word.starts_with("CNI-HOSTPORT-");
            line.starts_with("-A ") && line.split(' ').any(of_a_pod)
        }),
    ]
    .concat()
    .into_iter()
    .collect()
}
