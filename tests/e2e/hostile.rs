//! Pods that do their worst beside a real control plane, whose health must not change for a moment: a minute of it with
//! every run, as many seconds as `KUBEBOOT_HOSTILE_SECONDS` says otherwise.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kubeboot::testing::real::image;
use serde_json::Value;

use crate::machine::*;

const MINUTE: Duration = Duration::from_secs(60);
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Keys of the ConfigMap that a bound pod mounts.
const KEYS: usize = 5000;

/// Name and containers of each hostile static pod, as YAML; COUNT changes with each edit.
const PODS: &[(&str, &str)] = &[
    // Ends at once, over and over, with a probe that would condemn it.
    (
        "storm",
        "  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: IMAGE, command: [/bin/sh, -c, exit COUNT]}
  - {name: b, image: IMAGE, command: [/bin/sh, -c, exit 1], livenessProbe: {exec: {command: [/bin/false]}, periodSeconds: 1}}
  - {name: c, image: IMAGE, command: [/nonexistent, COUNT]}
",
    ),
    // Writes as fast as it can.
    (
        "flood",
        "  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: IMAGE, command: [/bin/sh, -c, 'while :; do /bin/busybox echo all is well, take no notice; done']}
",
    ),
    // Asks for more time than there is, and is condemned and replaced all the same.
    (
        "huge",
        "  terminationGracePeriodSeconds: 9223372036854775807
  containers:
  - name: a
    image: IMAGE
    command: [/bin/sh, -c, \"trap 'exit 0' TERM; while :; do /bin/busybox sleep 1; done\", COUNT]
    livenessProbe:
      {exec: {command: [/bin/false]}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 9223372036854775807}
    readinessProbe: {exec: {command: [/bin/true]}, initialDelaySeconds: 2147483647, periodSeconds: 2147483647}
",
    ),
];

fn manifest(name: &str, spec: &str, count: usize) -> String {
    let spec = spec.replace("IMAGE", IMAGE).replace("COUNT", &format!("'{count}'"));
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n{spec}")
}

/// What is reported of each component: everything but when it was asked.
fn health() -> BTreeMap<String, Value> {
    let status = status();
    let pods = status["pods"].as_array().cloned().unwrap_or_default();
    let components = pods.into_iter().filter(|pod| pod["component"].is_string());
    components.map(|pod| (pod["component"].as_str().unwrap_or_default().to_owned(), pod)).collect()
}

/// A ConfigMap of thousands of keys, and a pod of the API server's that mounts it and asks for 292 billion years to end.
fn bound(node: &str, count: usize) -> String {
    let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hostile}\ndata:\n".to_owned();
    (0..KEYS).for_each(|key| writeln!(text, "  key-{key}: 'value {count}'").unwrap());
    write!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: hostile}}\nspec:\n  nodeName: {node}\n  hostNetwork: true\n  \
         automountServiceAccountToken: false\n  terminationGracePeriodSeconds: 9223372036854775807\n  \
         volumes: [{{name: v, configMap: {{name: hostile}}}}]\n  containers:\n  - name: c\n    image: {IMAGE}\n    \
         imagePullPolicy: Never\n    command: [/bin/sh, -c, \"trap 'exit 0' TERM; while :; do /bin/busybox sleep 1; done\"]\n    \
         volumeMounts: [{{name: v, mountPath: /v}}]\n"
    )
    .unwrap();
    text
}

pub fn hostile_pods_do_not_change_the_health_of_the_control_plane() {
    let seconds = std::env::var("KUBEBOOT_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    image::made();
    let _plane = Shared::plane();
    let node = node_name();
    eventually("a service account", MINUTE, || {
        (kubectl(&["get", "serviceaccount", "default"]).code == 0).then_some(())
    });
    with_objects("create", &bound(&node, 0)).ok();
    let phase = || kubectl(&["get", "pod", "hostile", "-o", "jsonpath={.status.phase}"]).stdout;
    eventually("the bound pod runs", MINUTE, || (phase() == "Running").then_some(()));
    let agent = status()["agent"]["pid"].clone();
    let before = health();
    assert_eq!(before.len(), 4, "{before:#?}");

    let (begun, mut edits, mut looks) = (Instant::now(), 0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        edits += 1;
        for (name, spec) in PODS {
            put(&Path::new(MANIFESTS).join(format!("{name}.yaml")), manifest(name, spec, edits));
        }
        if edits % 20 == 0 {
            // A kubectl that the load lets wait too long changes nothing, which is as well.
            with_objects("replace", bound(&node, edits).split("---\n").next().unwrap());
        }
        if edits % 10 == 0 {
            PODS.iter().for_each(|(name, _)| std::fs::remove_file(format!("{MANIFESTS}/{name}.yaml")).unwrap());
        }
        let now = health();
        assert_eq!(now, before, "after {:?}, {edits} edits", begun.elapsed());
        looks += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    eprintln!("{looks} looks in {:?}, {edits} edits of each manifest", begun.elapsed());

    assert_eq!(status()["agent"]["pid"], agent, "the agent is the same");
    for (name, _) in PODS {
        let _ = std::fs::remove_file(format!("{MANIFESTS}/{name}.yaml"));
    }
    kubectl(&["delete", "pod", "hostile", "--wait=false"]).ok();
    let removed = Instant::now();
    eventually("all of them are gone", MINUTE * 2, || {
        let left: Vec<_> =
            containers().into_iter().filter(|(name, _)| ["a", "b", "c"].contains(&name.as_str())).collect();
        // A TERM that comes before a shell has set its trap is lost on the first process of a container, and these have been
        // given all the time there is to end: ask once more.
        if removed.elapsed() > Duration::from_secs(20) {
            left.iter().for_each(|(_, id)| drop(run("docker", &["kill", "--signal", "TERM", id])));
        }
        left.is_empty().then_some(())
    });
    eventually("the bound pod is gone", MINUTE, || phase().is_empty().then_some(()));
    assert_eq!(health(), before);
    kubectl(&["delete", "configmap", "hostile"]).ok();
}
