//! What `init phase NAME` takes, as kubeadm has it, and how its help explains it. Every phase takes `--config` and `--dry-run` besides. Ours are
//! --node-agent, and --node-name and --apiserver-advertise-address with the certificates that name the node.

use crate::workflow::phase::PhaseOptions;

const fn row(name: &'static str, flags: &'static str, help: &'static str) -> PhaseOptions {
    PhaseOptions { name, flags, help }
}

const CERTS: &str = "cert-dir kubernetes-version";
const CERTS_SERVING: &str = "apiserver-advertise-address apiserver-cert-extra-sans cert-dir control-plane-endpoint \
                             kubernetes-version node-name service-cidr service-dns-domain";
const CERTS_OF_NODE: &str = "apiserver-advertise-address cert-dir kubernetes-version node-name";
const SERVING: &str = "The certificate that the API server shows: for its service names, the node's name and address, \
                       the control-plane endpoint and --apiserver-cert-extra-sans.";

/// One row a phase; a child without a row of its own has its group's.
pub const OPTIONS: &[PhaseOptions] = &[
    row(
        "preflight",
        "cri-socket ignore-preflight-errors image-repository node-agent",
        "Looks at the machine before anything is written: every check runs and every finding is told at once, under \
         kubeadm's names, which --ignore-preflight-errors takes. Then it fetches the images that are missing.",
    ),
    row(
        "certs",
        CERTS_SERVING,
        "Makes the certificate authorities, the certificates that they sign, and the key pair for service accounts, \
         below the directory of certificates. What is there is kept if it fits, and refused if it does not. With a \
         ca.crt and no ca.key the authority is an external one, and every certificate has to be there.",
    ),
    row("certs/ca", CERTS, "The authority of the cluster, which nodes, components and users trust."),
    row("certs/apiserver", CERTS_SERVING, SERVING),
    row("certs/apiserver-kubelet-client", CERTS, "The certificate with which the API server speaks to kubelets."),
    row("certs/front-proxy-ca", CERTS, "The authority of extension API servers' front proxy."),
    row(
        "certs/front-proxy-client",
        CERTS,
        "The certificate with which the API server speaks to extension API servers.",
    ),
    row("certs/etcd-ca", CERTS, "The authority of etcd: members and clients are known by it alone."),
    row("certs/etcd-server", CERTS_OF_NODE, "The certificate that etcd shows to its clients."),
    row("certs/etcd-peer", CERTS_OF_NODE, "The certificate with which members of etcd speak to each other."),
    row("certs/etcd-healthcheck-client", CERTS, "The certificate of etcd's health checks."),
    row("certs/apiserver-etcd-client", CERTS, "The certificate with which the API server speaks to etcd."),
    row("certs/sa", CERTS, "The key pair that signs the tokens of service accounts; a key, no certificate."),
    row(
        "kubeconfig",
        "apiserver-advertise-address apiserver-bind-port cert-dir control-plane-endpoint kubeconfig-dir \
         kubernetes-version node-name",
        "Makes the kubeconfigs, each with a client certificate inside: admin.conf for administrators (in the group \
         kubeadm:cluster-admins), super-admin.conf as the way in when roles are broken, kubelet.conf, \
         controller-manager.conf and scheduler.conf. The directory of certificates has to hold the cluster's authority.",
    ),
    row(
        "etcd",
        "cert-dir image-repository patches",
        "Writes the static pod manifest of a local etcd of one member, and makes its data directory (0700). Nothing \
         is written where etcd is external.",
    ),
    row(
        "control-plane",
        "apiserver-advertise-address apiserver-bind-port cert-dir control-plane-endpoint feature-gates image-repository \
         kubernetes-version patches pod-network-cidr service-cidr",
        "Writes the static pod manifests of the API server, the controller manager and the scheduler. The node agent \
         starts what it finds there, and starts it anew when it changes.",
    ),
    row(
        "control-plane/apiserver",
        "apiserver-advertise-address apiserver-bind-port cert-dir control-plane-endpoint feature-gates image-repository \
         kubernetes-version patches service-cidr",
        "The static pod manifest of kube-apiserver.",
    ),
    row(
        "control-plane/controller-manager",
        "cert-dir image-repository kubernetes-version patches pod-network-cidr",
        "The static pod manifest of kube-controller-manager.",
    ),
    row(
        "control-plane/scheduler",
        "cert-dir image-repository kubernetes-version patches",
        "The static pod manifest of kube-scheduler.",
    ),
    row(
        "kubelet-start",
        "cri-socket image-repository node-agent node-name patches",
        "Writes the kubelet's settings (config.yaml, instance-config.yaml, kubeadm-flags.env), the unit \
         kubelet.service and its drop-in, and starts it: kubeboot's own static-pod agent, or a real kubelet with \
         nodeAgent: kubelet. Without a service manager the agent runs as a process of its own, and that is said.",
    ),
    row(
        "wait-control-plane",
        "node-agent",
        "Waits until the agent reports every component of the control plane healthy, and says what each waits for; a \
         component that fails is named with its exit code and its last words. Then the administrators of admin.conf \
         get their rights.",
    ),
    row(
        "upload-config",
        "cri-socket kubeconfig",
        "Uploads the configuration for nodes that join: ClusterConfiguration as the config map kubeadm-config, and the \
         kubelets' settings as kubelet-config, with the roles that let nodes read them.",
    ),
    row(
        "upload-certs",
        "certificate-key kubeconfig skip-certificate-key-print upload-certs",
        "Uploads the certificates that control-plane nodes share, encrypted with the certificate key, as the Secret \
         kubeadm-certs, which lives for two hours. Does nothing without --upload-certs.",
    ),
    row(
        "mark-control-plane",
        "node-name",
        "Labels the node as one of the control plane's, and taints it so that no other pods are put there. Where no \
         Node object is (kubeboot's own agent makes one only on request), there is nothing to mark.",
    ),
    row(
        "bootstrap-token",
        "kubeconfig skip-token-print",
        "Makes the bootstrap token, the roles that let a node join with it and get its certificate approved, and the \
         public config map cluster-info, which tells a node where the cluster is.",
    ),
    row(
        "kubelet-finalize",
        "cert-dir",
        "Points kubelet.conf at the certificate that the kubelet renews by itself, once there is one.",
    ),
    row(
        "addon",
        "apiserver-advertise-address apiserver-bind-port control-plane-endpoint feature-gates image-repository \
         kubeconfig kubernetes-version pod-network-cidr print-manifest service-cidr service-dns-domain",
        "Installs CoreDNS, the cluster's DNS server, and kube-proxy, which makes services reachable.",
    ),
    row(
        "addon/coredns",
        "feature-gates image-repository kubeconfig kubernetes-version print-manifest service-cidr service-dns-domain",
        "CoreDNS: a Deployment of two, its settings and its service.",
    ),
    row(
        "addon/kube-proxy",
        "apiserver-advertise-address apiserver-bind-port control-plane-endpoint image-repository kubeconfig \
         kubernetes-version pod-network-cidr print-manifest",
        "kube-proxy: a DaemonSet and its settings.",
    ),
    row("show-join-command", "", "Prints how other machines join this cluster."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::init::PHASES;
    use crate::workflow::phase::options_of;

    #[test]
    fn every_phase_and_every_flag_of_its_is_explained() {
        for phase in &PHASES.list {
            let own = OPTIONS.iter().find(|row| row.name == phase.name);
            assert!(own.is_some_and(|row| row.help.len() > 40), "{} has no paragraph", phase.name);
            for child in &phase.children {
                let row = options_of(OPTIONS, phase.name, Some(child.name));
                assert!(row.is_some(), "{}/{}", phase.name, child.name);
            }
        }
    }

    #[test]
    fn a_child_without_a_row_of_its_own_has_its_groups() {
        let flags = |name, child| options_of(OPTIONS, name, child).unwrap().flags;
        assert_eq!(flags("kubeconfig", Some("admin")), flags("kubeconfig", None));
        assert_eq!(flags("certs", Some("sa")), CERTS);
        assert_eq!(flags("certs", Some("all")), CERTS_SERVING);
    }
}
