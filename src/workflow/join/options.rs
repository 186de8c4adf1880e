//! What `join phase NAME` takes, as kubeadm has it, and how its help explains it.

use crate::workflow::phase::PhaseOptions;

const DISCOVERY: &str = "cri-socket discovery-file discovery-token discovery-token-ca-cert-hash \
                         discovery-token-unsafe-skip-ca-verification node-name patches tls-bootstrap-token token";

/// One row a phase.
pub const OPTIONS: &[PhaseOptions] = &[
    PhaseOptions {
        name: "preflight",
        flags: "apiserver-advertise-address apiserver-bind-port certificate-key control-plane cri-socket discovery-file \
                discovery-token discovery-token-ca-cert-hash discovery-token-unsafe-skip-ca-verification \
                ignore-preflight-errors node-name tls-bootstrap-token token",
        help: "Looks at the machine before anything is written: every check runs and every finding is told at once, \
               under kubeadm's names, which --ignore-preflight-errors takes. Then it finds the cluster, makes sure that \
               it is the one that was meant, and that the kubelet goes with its control plane.",
    },
    PhaseOptions {
        name: "kubelet-start",
        flags: DISCOVERY,
        help: "Writes the kubelet's first credentials (bootstrap-kubelet.conf), the cluster's CA, and the kubelet's \
               settings as the cluster has them with what belongs to this node, and starts the kubelet. A unit and a \
               drop-in that a package has brought are kept. Refuses a name that a Ready node of the cluster has.",
    },
    PhaseOptions {
        name: "kubelet-wait-bootstrap",
        flags: DISCOVERY,
        help: "Waits until the kubelet is healthy and the cluster has given it its own certificate, and removes the \
               credentials it asked with.",
    },
];
