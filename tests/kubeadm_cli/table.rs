//! kubeadm's commands and flags, as of 1.36, and what each is here.

/// What a command or a flag of kubeadm is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// The same name, meaning and output.
    Same,
    /// The same name, and more: what.
    Better(&'static str),
    /// Not there: why.
    Missing(&'static str),
}

/// A command of kubeadm with its flags.
pub struct Row {
    /// The words after `kubeadm`; empty for the flags of every command.
    pub command: &'static str,
    /// What the command is.
    pub is: Is,
    /// Its flags, without dashes; each is the same unless `apart` says otherwise.
    pub flags: &'static str,
    /// Flags that are not simply the same.
    pub apart: &'static [(&'static str, Is)],
}

use Is::{Better, Missing, Same};

const fn row(command: &'static str, is: Is, flags: &'static str) -> Row {
    Row { command, is, flags, apart: &[] }
}

const fn with(row: Row, apart: &'static [(&'static str, Is)]) -> Row {
    Row { apart, ..row }
}

const TAKEN_BACK: Is = Better("`upgrade rollback` takes it back");
const TEMPLATES: Is = Missing("-o is text, json or yaml: there are no templates, and no managed fields are shown");
const HA: Is = Missing("joining a control-plane node comes with high availability");

/// Every command, in the order of kubeadm's own help.
pub const TABLE: &[Row] = &[
    with(row("", Same, "rootfs v vmodule"), &[("rootfs", Better("a prefix of every path: no chroot, no privilege"))]),
    // init
    with(
        row(
            "init",
            Better("a run that was cut off is finished by the same command; -o json|yaml prints events"),
            "apiserver-advertise-address apiserver-bind-port apiserver-cert-extra-sans cert-dir certificate-key config \
             control-plane-endpoint cri-socket dry-run feature-gates ignore-preflight-errors image-repository \
             kubernetes-version node-name patches pod-network-cidr service-cidr service-dns-domain \
             skip-certificate-key-print skip-phases skip-token-print token token-ttl upload-certs",
        ),
        &[("dry-run", Better("--output-dir DIR writes the files below it; needs no root"))],
    ),
    row("init phase preflight", Same, "config cri-socket dry-run ignore-preflight-errors image-repository"),
    row("init phase certs all", Same, CERTS_SERVING),
    row("init phase certs ca", Same, CERTS),
    row("init phase certs apiserver", Same, CERTS_SERVING),
    row("init phase certs apiserver-kubelet-client", Same, CERTS),
    row("init phase certs front-proxy-ca", Same, CERTS),
    row("init phase certs front-proxy-client", Same, CERTS),
    row("init phase certs etcd-ca", Same, CERTS),
    row("init phase certs etcd-server", Same, CERTS),
    row("init phase certs etcd-peer", Same, CERTS),
    row("init phase certs etcd-healthcheck-client", Same, CERTS),
    row("init phase certs apiserver-etcd-client", Same, CERTS),
    row("init phase certs sa", Same, CERTS),
    row("init phase kubeconfig all", Same, KUBECONFIG),
    row("init phase kubeconfig admin", Same, KUBECONFIG),
    row("init phase kubeconfig super-admin", Same, KUBECONFIG),
    row("init phase kubeconfig kubelet", Same, KUBECONFIG),
    row("init phase kubeconfig controller-manager", Same, KUBECONFIG),
    row("init phase kubeconfig scheduler", Same, KUBECONFIG),
    row("init phase etcd local", Same, "cert-dir config dry-run image-repository patches"),
    with(
        row(
            "init phase control-plane all",
            Same,
            "apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run feature-gates \
             image-repository kubernetes-version patches pod-network-cidr service-cidr",
        ),
        &[],
    ),
    with(
        row(
            "init phase control-plane apiserver",
            Same,
            "apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run feature-gates \
             image-repository kubernetes-version patches service-cidr",
        ),
        &[],
    ),
    row(
        "init phase control-plane controller-manager",
        Same,
        "cert-dir config dry-run image-repository kubernetes-version patches pod-network-cidr",
    ),
    row(
        "init phase control-plane scheduler",
        Same,
        "cert-dir config dry-run image-repository kubernetes-version patches",
    ),
    row(
        "init phase kubelet-start",
        Better("starts kubeboot's own static-pod agent under the kubelet's unit; no kubelet needed"),
        "config cri-socket dry-run image-repository node-name patches",
    ),
    row(
        "init phase wait-control-plane",
        Better("asks the agent: names the component, its exit code and last log lines"),
        "",
    ),
    row("init phase upload-config all", Same, "config cri-socket dry-run kubeconfig"),
    row("init phase upload-config kubeadm", Same, "config cri-socket dry-run kubeconfig"),
    row("init phase upload-config kubelet", Same, "config cri-socket dry-run kubeconfig"),
    row(
        "init phase upload-certs",
        Same,
        "certificate-key config dry-run kubeconfig skip-certificate-key-print upload-certs",
    ),
    row("init phase mark-control-plane", Same, "config dry-run node-name"),
    row("init phase bootstrap-token", Same, "config dry-run kubeconfig skip-token-print"),
    row("init phase kubelet-finalize all", Same, "cert-dir config dry-run"),
    row("init phase kubelet-finalize enable-client-cert-rotation", Same, "cert-dir config dry-run"),
    with(
        row(
            "init phase addon all",
            Same,
            "apiserver-advertise-address apiserver-bind-port config control-plane-endpoint dry-run feature-gates \
         image-repository kubeconfig kubernetes-version pod-network-cidr print-manifest service-cidr service-dns-domain",
        ),
        &[],
    ),
    with(
        row(
            "init phase addon coredns",
            Same,
            "config dry-run feature-gates image-repository kubeconfig kubernetes-version print-manifest service-cidr \
         service-dns-domain",
        ),
        &[],
    ),
    with(
        row(
            "init phase addon kube-proxy",
            Same,
            "apiserver-advertise-address apiserver-bind-port config control-plane-endpoint dry-run image-repository \
         kubeconfig kubernetes-version pod-network-cidr print-manifest",
        ),
        &[],
    ),
    row("init phase show-join-command", Same, ""),
    // join
    with(
        row(
            "join",
            Better("a run that was cut off is finished by the same command; -o json|yaml prints events"),
            "apiserver-advertise-address apiserver-bind-port certificate-key config control-plane cri-socket \
             discovery-file discovery-token discovery-token-ca-cert-hash discovery-token-unsafe-skip-ca-verification \
             dry-run ignore-preflight-errors node-name patches skip-phases tls-bootstrap-token token",
        ),
        &[
            ("dry-run", Better("finds and checks the cluster for real; --output-dir DIR writes the files below it")),
            ("control-plane", Better("taken, and refused with what to do: it comes with high availability")),
        ],
    ),
    row(
        "join phase preflight",
        Same,
        "apiserver-advertise-address apiserver-bind-port certificate-key config control-plane cri-socket \
         discovery-file discovery-token discovery-token-ca-cert-hash discovery-token-unsafe-skip-ca-verification dry-run \
         ignore-preflight-errors node-name tls-bootstrap-token token",
    ),
    row("join phase control-plane-prepare all", HA, ""),
    row("join phase control-plane-prepare download-certs", HA, ""),
    row("join phase control-plane-prepare certs", HA, ""),
    row("join phase control-plane-prepare kubeconfig", HA, ""),
    row("join phase control-plane-prepare control-plane", HA, ""),
    row(
        "join phase kubelet-start",
        Better("writes a unit and kubeadm's drop-in where the machine has none"),
        "config cri-socket discovery-file discovery-token discovery-token-ca-cert-hash \
         discovery-token-unsafe-skip-ca-verification dry-run node-name patches tls-bootstrap-token token",
    ),
    row("join phase etcd-join", HA, ""),
    row(
        "join phase kubelet-wait-bootstrap",
        Better("a kubelet that does not come up is told of with its last log lines"),
        "config cri-socket discovery-file discovery-token discovery-token-ca-cert-hash \
         discovery-token-unsafe-skip-ca-verification dry-run node-name patches tls-bootstrap-token token",
    ),
    row("join phase control-plane-join all", HA, ""),
    row("join phase control-plane-join mark-control-plane", HA, ""),
    row("join phase wait-control-plane", HA, ""),
    // reset
    row(
        "reset",
        Better("removes what the inventory says was made here, and nothing else"),
        "cert-dir cleanup-tmp-dir config cri-socket dry-run force ignore-preflight-errors kubeconfig skip-phases",
    ),
    row("reset phase preflight", Same, "dry-run force ignore-preflight-errors"),
    row("reset phase remove-etcd-member", Better("never below an etcd that runs"), "dry-run kubeconfig"),
    row("reset phase cleanup-node", Same, "cert-dir cleanup-tmp-dir cri-socket dry-run"),
    // upgrade
    with(
        row(
            "upgrade plan",
            Better(
                "shows everything that stands in the way at once, and an exit code tells; asks no server for versions",
            ),
            "allow-experimental-upgrades allow-missing-template-keys allow-release-candidate-upgrades config \
             etcd-upgrade ignore-preflight-errors kubeconfig output print-config show-managed-fields",
        ),
        TEMPLATES_ALONE,
    ),
    row(
        "upgrade apply",
        Better("ends exactly new or exactly old: the first component that fails brings all back; exit codes tell"),
        "allow-experimental-upgrades allow-release-candidate-upgrades certificate-renewal config dry-run \
         etcd-upgrade force ignore-preflight-errors kubeconfig patches print-config skip-phases yes",
    ),
    row(
        "upgrade apply phase preflight",
        Same,
        "allow-experimental-upgrades allow-release-candidate-upgrades config dry-run force ignore-preflight-errors \
         kubeconfig yes",
    ),
    row(
        "upgrade apply phase control-plane",
        Better("the first component that fails brings all back"),
        "certificate-renewal config dry-run etcd-upgrade kubeconfig patches",
    ),
    row("upgrade apply phase upload-config all", TAKEN_BACK, "config dry-run kubeconfig"),
    row("upgrade apply phase upload-config kubeadm", TAKEN_BACK, "config dry-run kubeconfig"),
    row("upgrade apply phase upload-config kubelet", TAKEN_BACK, "config dry-run kubeconfig"),
    row("upgrade apply phase kubelet-config", TAKEN_BACK, "config dry-run kubeconfig patches"),
    row("upgrade apply phase bootstrap-token", TAKEN_BACK, "config dry-run kubeconfig"),
    row("upgrade apply phase addon all", TAKEN_BACK, "config dry-run kubeconfig patches"),
    row("upgrade apply phase addon coredns", TAKEN_BACK, "config dry-run kubeconfig patches"),
    row("upgrade apply phase addon kube-proxy", TAKEN_BACK, "config dry-run kubeconfig"),
    row("upgrade apply phase post-upgrade", Better("sees every component healthy"), "config dry-run kubeconfig"),
    row(
        "upgrade node",
        Better("a control-plane node ends exactly new or exactly old"),
        "certificate-renewal config dry-run etcd-upgrade ignore-preflight-errors kubeconfig patches skip-phases",
    ),
    row("upgrade node phase preflight", Same, "config dry-run ignore-preflight-errors kubeconfig"),
    row(
        "upgrade node phase control-plane",
        Better("the first component that fails brings all back"),
        "certificate-renewal config dry-run etcd-upgrade kubeconfig patches",
    ),
    row("upgrade node phase kubelet-config", TAKEN_BACK, "config dry-run kubeconfig patches"),
    row("upgrade node phase addon all", TAKEN_BACK, "config dry-run kubeconfig patches"),
    row("upgrade node phase addon coredns", TAKEN_BACK, "config dry-run kubeconfig patches"),
    row("upgrade node phase addon kube-proxy", TAKEN_BACK, "config dry-run kubeconfig"),
    row("upgrade node phase post-upgrade", Better("sees every component healthy"), "config dry-run kubeconfig"),
    row(
        "upgrade diff",
        Better("etcd, the kubelet's settings and the config maps too; colours on a terminal, and `-o json`"),
        "config context-lines kubeconfig",
    ),
    // certs
    row("certs certificate-key", Same, ""),
    with(
        row(
            "certs check-expiration",
            Same,
            "allow-missing-template-keys cert-dir config kubeconfig output show-managed-fields",
        ),
        NO_SERVER_NO_TEMPLATES,
    ),
    row(
        "certs generate-csr",
        Better("run again it uses the keys that are there; a CA that is there goes into the kubeconfigs"),
        "cert-dir config kubeconfig-dir",
    ),
    with(row("certs renew all", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew admin.conf", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew super-admin.conf", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew controller-manager.conf", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew scheduler.conf", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew apiserver", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew apiserver-etcd-client", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew apiserver-kubelet-client", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew etcd-healthcheck-client", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew etcd-peer", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew etcd-server", RENEWED, RENEW), NO_SERVER),
    with(row("certs renew front-proxy-client", RENEWED, RENEW), NO_SERVER),
    // token
    row(
        "token create",
        Same,
        "certificate-key config description dry-run groups kubeconfig print-join-command ttl usages",
    ),
    row("token delete", Same, "dry-run kubeconfig"),
    row("token generate", Same, "dry-run kubeconfig"),
    with(
        row("token list", Same, "allow-missing-template-keys dry-run kubeconfig output show-managed-fields"),
        &[("allow-missing-template-keys", TEMPLATES), ("show-managed-fields", TEMPLATES)],
    ),
    // the rest
    row("kubeconfig user", Same, "client-name config org token validity-period"),
    row("config print init-defaults", Same, "component-configs kubeconfig"),
    row("config print join-defaults", Same, "component-configs kubeconfig"),
    row("config print reset-defaults", Same, "component-configs kubeconfig"),
    row("config print upgrade-defaults", Same, "component-configs kubeconfig"),
    row("config migrate", Same, "allow-experimental-api kubeconfig new-config old-config"),
    row("config validate", Same, "allow-deprecated-api allow-experimental-api config kubeconfig"),
    with(
        row(
            "config images list",
            Same,
            "allow-missing-template-keys config feature-gates image-repository kubeconfig kubernetes-version output \
             show-managed-fields",
        ),
        &[("allow-missing-template-keys", TEMPLATES), ("show-managed-fields", TEMPLATES)],
    ),
    row("config images pull", Same, "config cri-socket feature-gates image-repository kubeconfig kubernetes-version"),
    row("version", Same, "output"),
    row("completion bash", Same, ""),
    row("completion zsh", Same, ""),
];

const CERTS: &str = "cert-dir config dry-run kubernetes-version";
const CERTS_SERVING: &str = "apiserver-advertise-address apiserver-cert-extra-sans cert-dir config \
                             control-plane-endpoint dry-run kubernetes-version service-cidr service-dns-domain";
const KUBECONFIG: &str = "apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run \
                          kubeconfig-dir kubernetes-version node-name";
const RENEW: &str = "cert-dir config kubeconfig";

const RENEWED: Is = Better(
    "restarts what has to read the new certificates, one component after the other, and sees each in use; replaces files all \
     or none; --no-restart only writes them",
);
const NO_SERVER: &[(&str, Is)] = &[("kubeconfig", Better(ON_MACHINE))];
const ON_MACHINE: &str = "taken and not needed: the configuration is on the machine";
const TEMPLATES_ALONE: &[(&str, Is)] =
    &[("allow-missing-template-keys", NO_TEMPLATES), ("show-managed-fields", NO_TEMPLATES)];
const NO_SERVER_NO_TEMPLATES: &[(&str, Is)] = &[
    ("allow-missing-template-keys", NO_TEMPLATES),
    ("kubeconfig", Better(ON_MACHINE)),
    ("show-managed-fields", NO_TEMPLATES),
];
const NO_TEMPLATES: Is = Missing("output is text, json or yaml; for templates there are jq and yq");
