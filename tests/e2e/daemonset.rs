//! Pods that a real control plane binds to its own node: a DaemonSet as kube-proxy is one, and pods that the node cannot run.

use std::time::Duration;

use kubeboot::testing::real::image;

use crate::machine::*;

const MINUTE: Duration = Duration::from_secs(60);
/// What the container does: all it is given must be there before it is ready.
const OBJECTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: daemon, namespace: kube-system}
data: {conf: one}
---
apiVersion: v1
kind: Secret
metadata: {name: daemon, namespace: kube-system}
stringData: {password: hidden}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: daemon, namespace: kube-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: daemon, namespace: kube-system}
spec:
  selector: {matchLabels: {app: daemon}}
  template:
    metadata: {labels: {app: daemon}}
    spec:
      hostNetwork: true
      serviceAccountName: daemon
      terminationGracePeriodSeconds: 5
      tolerations: [{operator: Exists}]
      containers:
      - name: daemon
        image: IMAGE
        imagePullPolicy: Never
        command: [/bin/sh, -c, "trap 'exit 0' TERM; while :; do /bin/busybox sleep 1; done"]
        envFrom: [{configMapRef: {name: daemon}}]
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: daemon, key: password}}}]
        readinessProbe:
          periodSeconds: 1
          exec:
            command: [/bin/sh, -c, 'test -s /conf/conf -a -s /secret/password -a -s /all/conf -a -s /all/name -a -s /labels/labels -a -s /var/run/secrets/kubernetes.io/serviceaccount/token -a "$conf" = one -a "$PASSWORD" = hidden -a -n "$KUBERNETES_SERVICE_HOST"']
        volumeMounts:
        - {name: conf, mountPath: /conf}
        - {name: secret, mountPath: /secret}
        - {name: all, mountPath: /all}
        - {name: labels, mountPath: /labels}
      volumes:
      - {name: conf, configMap: {name: daemon}}
      - {name: secret, secret: {secretName: daemon, defaultMode: 0400}}
      - name: all
        projected:
          sources:
          - configMap: {name: daemon}
          - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
      - {name: labels, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"#;

/// Gives objects to kubectl, once it takes them.
pub fn apply(text: &str) {
    eventually("kubectl apply", MINUTE, || with_objects("apply", text).succeeded());
}

/// A field of the DaemonSet's pods.
fn of_pod(path: &str) -> String {
    let path = format!("jsonpath={{.items[*]{path}}}");
    kubectl(&["-n", "kube-system", "get", "pods", "-l", "app=daemon", "-o", &path]).ok()
}

fn container() -> String {
    run("docker", &["ps", "-q", "--no-trunc", "--filter", "label=io.kubernetes.container.name=daemon"]).ok()
}

fn in_container(file: &str) -> String {
    run("docker", &["exec", container().trim(), "/bin/busybox", "cat", file]).stdout
}

pub fn a_daemon_set_runs_follows_its_config_map_outlives_the_agent_and_is_deleted_in_order() {
    image::made();
    let _plane = Shared::plane();
    apply(&OBJECTS.replace("IMAGE", IMAGE));
    let ready = || (of_pod(".status.containerStatuses[*].ready") == "true").then_some(());
    eventually("the DaemonSet's pod is ready", MINUTE, ready);
    assert_eq!(of_pod(".status.phase"), "Running");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(
        mounts.lines().any(|line| line.starts_with("tmpfs") && line.contains("kubernetes.io~secret/secret ")),
        "{mounts}"
    );

    // What a container wrote there would be read as the API server's.
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    for dir in ["/conf", "/secret", "/all", "/labels", token] {
        let file = format!("{dir}/forged");
        let touched = run("docker", &["exec", container().trim(), "/bin/busybox", "touch", &file]);
        assert!(touched.code != 0 && touched.stderr.contains("Read-only file system"), "{dir}: {touched:?}");
    }

    let before = container();
    let agent = status()["agent"]["pid"].as_i64().unwrap();
    signal(agent as i32, "KILL");
    eventually("agent gone", MINUTE, || (kubeboot(&["status"]).code == 3).then_some(()));
    kubeboot(&["init", "phase", "kubelet-start", "--kubernetes-version", VERSION]).ok();
    healthy(MINUTE);
    assert_eq!(container(), before, "the same container runs on");

    kubectl(&["-n", "kube-system", "patch", "configmap", "daemon", "-p", r#"{"data":{"conf":"two"}}"#]).ok();
    eventually("the files follow", MINUTE * 2, || (in_container("/conf/conf") == "two").then_some(()));
    assert_eq!(in_container("/all/conf"), "two");
    assert_eq!(container(), before);

    kubectl(&["-n", "kube-system", "delete", "daemonset", "daemon"]).ok();
    eventually("nothing is left", MINUTE, || {
        (of_pod(".metadata.name").is_empty() && container().is_empty()).then_some(())
    });
    eventually("its secrets are gone", MINUTE, || {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let is_its = |line: &str| line.contains(" /var/lib/kubelet/") && line.contains("kubernetes.io~secret/secret ");
        (!mounts.lines().any(is_its)).then_some(())
    });
    kubectl(&["-n", "kube-system", "delete", "configmap/daemon", "secret/daemon", "serviceaccount/daemon"]).ok();
}

pub fn a_pod_that_the_node_cannot_run_is_refused_with_a_reason_that_kubectl_shows() {
    image::made();
    let _plane = Shared::plane();
    let node = node_name();
    let pod = |name: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  automountServiceAccountToken: \
             false\n  containers: [{{name: c, image: '{IMAGE}'}}]\n  {spec}\n"
        )
    };
    for (name, spec, reason) in [
        ("net", "", "PodNetworkUnavailable"),
        ("disk", "hostNetwork: true\n  volumes: [{name: v, nfs: {server: s, path: /}}]", "UnsupportedVolume"),
        ("elsewhere", "hostNetwork: true\n  nodeSelector: {none: such}", "NodeAffinity"),
    ] {
        apply(&pod(name, spec));
        eventually(&format!("{name} is refused"), MINUTE, || {
            let text = kubectl(&["describe", "pod", name]).stdout;
            let says = |part: &str| text.lines().any(|line| line.contains(part));
            let has_event = text.lines().any(|line| line.trim_start().starts_with("Warning") && line.contains(reason));
            (says("Failed") && says(reason) && has_event).then_some(())
        });
        assert_eq!(kubectl(&["get", "pod", name, "-o", "jsonpath={.status.reason}"]).ok(), reason);
        kubectl(&["delete", "pod", name]).ok();
    }
}
