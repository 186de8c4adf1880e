//! The pods: one of each kind that an agent has to treat differently.

use kubeboot::testing::real::image::{FOREVER, IMAGE, STUBBORN};

/// One kind of pod.
pub struct Kind {
    /// Name of the pod and of its file.
    pub name: &'static str,
    /// Containers that run for as long as the pod is wanted.
    pub lasting: &'static [&'static str],
    /// Whether it has a pause container.
    pub sandbox: bool,
    /// Whether it ends by itself, and well.
    pub ends: bool,
    spec: fn(u16) -> String,
}

/// Every kind. Ports of the machine count up from the one a run is given.
pub const KINDS: &[Kind] = &[
    Kind { name: "plain", lasting: &["main"], sandbox: false, ends: false, spec: plain },
    Kind { name: "web", lasting: &["main"], sandbox: false, ends: false, spec: web },
    Kind { name: "web-two", lasting: &["main"], sandbox: false, ends: false, spec: |port| web(port + 1) },
    Kind { name: "stubborn", lasting: &["main"], sandbox: false, ends: false, spec: stubborn },
    Kind { name: "pair", lasting: &["main", "other"], sandbox: true, ends: false, spec: pair },
    Kind { name: "pair-two", lasting: &["main", "other"], sandbox: true, ends: false, spec: pair },
    Kind { name: "tcp", lasting: &["main"], sandbox: true, ends: false, spec: tcp },
    Kind { name: "ordered", lasting: &["side", "main"], sandbox: true, ends: false, spec: ordered },
    Kind { name: "memory", lasting: &["main"], sandbox: true, ends: false, spec: memory },
    Kind { name: "hooks", lasting: &["main"], sandbox: true, ends: false, spec: hooks },
    Kind { name: "job", lasting: &[], sandbox: true, ends: true, spec: job },
    Kind { name: "retry", lasting: &[], sandbox: true, ends: true, spec: retry },
];

impl Kind {
    /// The manifest in its `revision`; `port` is the first of the run's ports.
    pub fn manifest(&self, revision: u32, port: u16) -> String {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: chaos\n  labels: {{revision: \"{revision}\"}}\n\
             spec:\n  terminationGracePeriodSeconds: 2\n{}",
            self.name,
            (self.spec)(port)
        );
        let common = format!("image: {IMAGE}\n    env: [{{name: REVISION, value: \"{revision}\"}}]");
        text.replace("COMMON", &common).replace("FOREVER", &format!("{FOREVER:?}"))
    }

    /// The file it is in.
    pub fn file(&self) -> String {
        format!("{}.yaml", self.name)
    }
}

fn plain(_: u16) -> String {
    "  hostNetwork: true\n  containers:\n  - name: main\n    COMMON\n    command: [sh, -c, FOREVER]\n".to_owned()
}

fn web(port: u16) -> String {
    let probe = format!("{{httpGet: {{host: 127.0.0.1, port: {port}, path: /etc/passwd}}, periodSeconds: 1}}");
    format!(
        "  hostNetwork: true\n  containers:\n  - name: main\n    COMMON\n    \
         command: [httpd, -f, -p, '127.0.0.1:{port}', -h, /]\n    readinessProbe: {probe}\n    livenessProbe: {probe}\n"
    )
}

fn stubborn(_: u16) -> String {
    format!("  hostNetwork: true\n  containers:\n  - name: main\n    COMMON\n    command: [sh, -c, {STUBBORN:?}]\n")
}

fn pair(_: u16) -> String {
    "  volumes: [{name: shared, emptyDir: {}}]\n  containers:\n  - name: main\n    COMMON\n    \
     command: [sh, -c, FOREVER]\n    volumeMounts: [{name: shared, mountPath: /shared}]\n    \
     readinessProbe: {exec: {command: [cat, /shared/file]}, periodSeconds: 1}\n  \
     - name: other\n    COMMON\n    command: [sh, -c, \"echo $REVISION > /shared/file; exec sh -c \\\"$0\\\"\", FOREVER]\n    \
     volumeMounts: [{name: shared, mountPath: /shared}]\n"
        .to_owned()
}

fn tcp(_: u16) -> String {
    "  containers:\n  - name: main\n    COMMON\n    command: [httpd, -f, -p, '80', -h, /]\n    \
     readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}\n    \
     livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 2}\n"
        .to_owned()
}

fn ordered(_: u16) -> String {
    let mount = "volumeMounts: [{name: shared, mountPath: /shared}]";
    format!(
        "  volumes: [{{name: shared, emptyDir: {{}}}}]\n  initContainers:\n  \
         - name: first\n    COMMON\n    command: [sh, -c, 'echo $REVISION > /shared/first']\n    {mount}\n  \
         - name: side\n    COMMON\n    restartPolicy: Always\n    command: [sh, -c, FOREVER]\n    {mount}\n  containers:\n  \
         - name: main\n    COMMON\n    command: [sh, -c, FOREVER]\n    {mount}\n    \
         startupProbe: {{exec: {{command: [sh, -c, '[ $(cat /shared/first) = $REVISION ]']}}, periodSeconds: 1}}\n"
    )
}

fn memory(_: u16) -> String {
    "  volumes: [{name: fast, emptyDir: {medium: Memory, sizeLimit: 4Mi}}]\n  containers:\n  - name: main\n    COMMON\n    \
     command: [sh, -c, FOREVER]\n    volumeMounts: [{name: fast, mountPath: /fast}]\n"
        .to_owned()
}

fn hooks(_: u16) -> String {
    "  volumes: [{name: shared, emptyDir: {}}]\n  containers:\n  - name: main\n    COMMON\n    \
     command: [sh, -c, FOREVER]\n    volumeMounts: [{name: shared, mountPath: /shared}]\n    lifecycle:\n      \
     postStart: {exec: {command: [sh, -c, 'echo $REVISION > /shared/started']}}\n      \
     preStop: {exec: {command: [sh, -c, 'echo bye > /shared/stopped']}}\n"
        .to_owned()
}

fn job(_: u16) -> String {
    "  restartPolicy: OnFailure\n  containers:\n  - name: main\n    COMMON\n    command: [sh, -c, 'sleep 0.5; exit 0']\n"
        .to_owned()
}

fn retry(_: u16) -> String {
    "  restartPolicy: OnFailure\n  volumes: [{name: shared, emptyDir: {}}]\n  containers:\n  - name: main\n    COMMON\n    \
     command: [sh, -c, 'if [ -e /shared/tried ]; then exit 0; fi; echo > /shared/tried; exit 1']\n    \
     volumeMounts: [{name: shared, mountPath: /shared}]\n"
        .to_owned()
}
