use super::*;

/// A pod `p` on node `node1` whose container `c` has this extra YAML (in flow style or one line).
pub(crate) fn pod(container: &str) -> StaticPod {
    pod_with("", container)
}

/// The same with extra lines in the spec.
pub(crate) fn pod_with(spec: &str, container: &str) -> StaticPod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  {spec}\n  containers:\n  - name: c\n    image: bb:1\n    {container}\n"
    );
    read(&text).unwrap()
}

pub(crate) fn read(text: &str) -> Result<StaticPod, PodError> {
    read_at(text, "node1", "/m/p.yaml")
}

fn read_at(text: &str, node_name: &str, file: &str) -> Result<StaticPod, PodError> {
    let origin = Origin { node_name, place: Place::File(Path::new(file)), seen: Timestamp::UNIX_EPOCH };
    StaticPod::from_bytes(text.as_bytes(), origin)
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: 'bb:1'}]}\n";

#[test]
fn a_pod_gets_the_kubelets_name_namespace_annotations_and_defaults() {
    let pod = read(POD).unwrap();
    assert_eq!(pod.key, PodKey { namespace: "default".into(), name: "a-node1".into() });
    let annotations = pod.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[CONFIG_HASH], pod.uid);
    assert_eq!(annotations[CONFIG_SOURCE], "file");
    assert_eq!(annotations[CONFIG_SEEN], "1970-01-01T00:00:00.000000000Z");
    assert_eq!(pod.spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(pod.spec.termination_grace_period_seconds, Some(30));
    assert_eq!(pod.spec.node_name.as_deref(), Some("node1"));
    let toleration = &pod.spec.tolerations.as_ref().unwrap()[0];
    assert_eq!((toleration.operator.as_deref(), toleration.effect.as_deref()), (Some("Exists"), Some("NoExecute")));
    assert_eq!(pod.spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
}

#[test]
fn the_uid_depends_on_content_path_and_node_and_not_on_layout() {
    let uid = read(POD).unwrap().uid;
    assert_eq!(uid.len(), 32);
    let json = r#"{"spec":{"containers":[{"image":"bb:1","name":"c"}]},"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#;
    assert_eq!(read(json).unwrap().uid, uid, "JSON, other key order");
    assert_eq!(read(&format!("# a comment\n{POD}\n")).unwrap().uid, uid, "comments");
    assert_ne!(read(&POD.replace("bb:1", "bb:2")).unwrap().uid, uid, "content");
    assert_ne!(read_at(POD, "node2", "/m/p.yaml").unwrap().uid, uid, "node");
    assert_ne!(read_at(POD, "node1", "/m/q.yaml").unwrap().uid, uid, "path");
    let explicit = read(&POD.replace("name: a", "name: a, uid: mine")).unwrap();
    assert_eq!(explicit.uid, "mine");
    assert_eq!(explicit.metadata.annotations.unwrap()[CONFIG_HASH], "mine");
}

#[test]
fn the_hash_of_a_container_changes_with_the_container_alone() {
    let (a, b) = (pod("args: [x]"), pod_with("hostPID: true", "args: [x]"));
    assert_eq!(a.container_hash("c"), b.container_hash("c"));
    assert_ne!(a.container_hash("c"), pod("args: [z]").container_hash("c"));
}

#[test]
fn other_kinds_are_refused_by_name() {
    for (kind, api) in [("ReplicaSet", "apps/v1"), ("PodList", "v1"), ("List", "v1"), ("Pod", "v2")] {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n");
        let error = read(&text).unwrap_err();
        assert_eq!(error.to_string(), format!("{kind} ({api}) is not run from a manifest file: only Pod (v1) is"));
    }
    assert!(matches!(read("# nothing\n"), Err(PodError::Empty)));
    assert!(matches!(read(""), Err(PodError::Empty)));
    assert!(matches!(read("kind: [Pod"), Err(PodError::Syntax { .. })));
    assert!(matches!(read("{\"kind\": "), Err(PodError::Syntax { .. })));
}

#[test]
fn only_the_first_document_counts_and_the_rest_is_mentioned() {
    let pod = read(&format!("{POD}---\n{}", POD.replace("name: a", "name: b"))).unwrap();
    assert_eq!(pod.key.name, "a-node1");
    assert_eq!(pod.warnings, ["only the first document is used"]);
    assert!(read(&format!("---\n{POD}---\n")).unwrap().warnings.is_empty(), "separators alone are nothing to mention");
}

#[test]
fn pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("x:1", "IfNotPresent"),
        ("r:5000/x", "Always"),
        ("r:5000/x:1", "IfNotPresent"),
        ("x@sha256:00", "IfNotPresent"),
    ] {
        let pod = read(&POD.replace("bb:1", image)).unwrap();
        assert_eq!(pod.spec.containers[0].image_pull_policy.as_deref(), Some(policy), "{image}");
    }
}

#[test]
fn what_needs_the_api_server_and_what_is_malformed_is_refused_with_its_field() {
    for (spec, container, expected) in [
        ("serviceAccountName: x", "", "spec.serviceAccountName: a static pod may not reference service accounts"),
        ("imagePullSecrets: [{name: x}]", "", "spec.imagePullSecrets: "),
        ("resourceClaims: [{name: x}]", "", "spec.resourceClaims: "),
        ("ephemeralContainers: [{name: x, image: z}]", "", "spec.ephemeralContainers: "),
        (
            "volumes: [{name: v, configMap: {name: x}}]",
            "",
            "spec.volumes[0]: a static pod may not reference API objects",
        ),
        ("volumes: [{name: v, secret: {secretName: x}}]", "", "spec.volumes[0]: "),
        ("volumes: [{name: v, persistentVolumeClaim: {claimName: x}}]", "", "spec.volumes[0]: "),
        (
            "volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]",
            "",
            "spec.volumes[0]: must have exactly one source",
        ),
        ("volumes: [{name: v}, {name: v}]", "", "spec.volumes[1]: there is another volume named \"v\""),
        ("volumes: [{name: V}]", "", "spec.volumes[0]: name \"V\" is not"),
        ("volumes: [{name: v, hostPath: {path: /a/../b}}]", "", "spec.volumes[0].hostPath.path: must not contain '..'"),
        (
            "volumes: [{name: v, hostPath: {path: /a, type: Dir}}]",
            "",
            "spec.volumes[0].hostPath.type: \"Dir\" is none of",
        ),
        (
            "",
            "volumeMounts: [{name: v, mountPath: /x}]",
            "spec.containers[0].volumeMounts[0]: there is no volume named \"v\"",
        ),
        ("", "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]", "spec.containers[0].env[0]: "),
        ("", "envFrom: [{configMapRef: {name: s}}]", "spec.containers[0].envFrom: "),
        (
            "hostNetwork: true",
            "ports: [{containerPort: 80, hostPort: 81}]",
            "spec.containers[0].ports[0]: hostPort must equal",
        ),
        ("", "ports: [{containerPort: 0}]", "spec.containers[0].ports[0]: containerPort must be"),
        ("", "resources: {limits: {memory: lots}}", "spec.containers[0].resources.limits.memory: \"lots\""),
        ("restartPolicy: Sometimes", "", "spec.restartPolicy: \"Sometimes\" is none of Always, OnFailure, Never"),
        ("initContainers: [{name: c, image: x}]", "", "spec.containers[0]: there is another container named \"c\""),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  {spec}\n  containers:\n  - name: c\n    image: x:1\n    {container}\n"
        );
        let message = read(&text).unwrap_err().to_string();
        assert!(message.starts_with(&format!("invalid Pod: {expected}")), "{spec}{container}: {message}");
    }
    assert!(matches!(read(&POD.replace("name: a", "name: A")), Err(PodError::Invalid { .. })));
    assert!(matches!(read(&POD.replace("name: a", "generateName: a")), Err(PodError::Invalid { .. })));
    assert!(matches!(read("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"), Err(PodError::Invalid { .. })));
}

#[test]
fn the_size_limit_is_the_kubelets() {
    let big = format!("{POD}#{}", "x".repeat(MANIFEST_LIMIT - POD.len() - 2));
    assert_eq!(big.len(), MANIFEST_LIMIT - 1);
    assert!(read(&big).is_ok());
    assert!(matches!(read(&format!("{big}x")), Err(PodError::TooLarge { .. })));
}

#[test]
fn only_a_lone_container_in_the_hosts_network_does_without_a_sandbox() {
    assert!(!pod_with("hostNetwork: true", "").needs_sandbox());
    assert!(pod("").needs_sandbox());
    assert!(pod_with("hostNetwork: true\n  shareProcessNamespace: true", "").needs_sandbox());
    assert!(pod_with("hostNetwork: true\n  initContainers: [{name: i, image: x}]", "").needs_sandbox());
}

#[test]
fn a_wrong_type_names_line_and_field() {
    let message = read(&POD.replace("name: c", "name: [c]")).unwrap_err().to_string();
    assert!(message.contains("line 4") && message.contains("spec.containers[0].name"), "{message}");
}
