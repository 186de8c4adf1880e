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

pub(super) fn read_at(text: &str, node_name: &str, file: &str) -> Result<StaticPod, PodError> {
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
            "spec.volumes[0]: a static pod may not reference config maps (configMap)",
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
        ("", "envFrom: [{configMapRef: {name: s}}]", "spec.containers[0].envFrom[0]: "),
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

/// What is reported of a pod with these lines in its spec and its container; empty if it may run.
fn reported(spec: &str, container: &str) -> String {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  {spec}\n  containers:\n  - name: c\n    image: x:1\n    {container}\n"
    );
    read(&text).map_or_else(|error| error.to_string(), |_| String::new())
}

#[test]
fn every_reference_to_the_api_server_is_refused_by_name() {
    let may_not = "a static pod may not reference";
    for (spec, container, what) in [
        ("volumes: [{name: v, secret: {secretName: s}}]", "", "secrets (secret)"),
        ("volumes: [{name: v, configMap: {name: s}}]", "", "config maps (configMap)"),
        ("volumes: [{name: v, persistentVolumeClaim: {claimName: s}}]", "", "persistent volume claims"),
        ("volumes: [{name: v, ephemeral: {}}]", "", "persistent volume claims (ephemeral)"),
        ("volumes: [{name: v, csi: {driver: d}}]", "", "CSI drivers"),
        ("volumes: [{name: v, rbd: {image: i, monitors: [m], secretRef: {name: s}}}]", "", "secrets (rbd)"),
        ("volumes: [{name: v, projected: {sources: [{clusterTrustBundle: {path: p}}]}}]", "", "API objects"),
        ("volumes: [{name: v, projected: {sources: [{secret: {name: s}}]}}]", "", "API objects"),
        ("serviceAccountName: s", "", "service accounts"),
        ("serviceAccount: s", "", "service accounts"),
        ("imagePullSecrets: [{name: s}]", "", "secrets"),
        ("resourceClaims: [{name: s}]", "", "resource claims"),
        ("", "resources: {claims: [{name: s}]}", "resource claims"),
        ("", "envFrom: [{secretRef: {name: s}}]", "secrets"),
        ("", "envFrom: [{configMapRef: {name: s}}]", "config maps"),
        ("", "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]", "secrets"),
        ("", "env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: k}}}]", "config maps"),
    ] {
        let message = reported(spec, container);
        assert!(message.contains(&format!("{may_not} {what}")), "{spec}{container}: {message}");
    }
    assert_eq!(reported("volumes: [{name: v, rbd: {image: i, monitors: [m]}}]", ""), "", "its mount fails, later");
}

#[test]
fn what_the_api_server_refuses_of_a_pod_is_refused() {
    for (spec, expected) in [
        ("activeDeadlineSeconds: 0", "activeDeadlineSeconds: must be 1 to"),
        ("subdomain: A", "subdomain: \"A\" is not"),
        ("os: {name: other}", "os.name: must be linux or windows"),
        ("hostUsers: false\n  hostNetwork: true", "spec.hostNetwork: cannot be true when hostUsers is false"),
        ("hostUsers: false\n  hostPID: true", "spec.hostPID: cannot be true when"),
        ("hostUsers: false\n  hostIPC: true", "spec.hostIPC: cannot be true when"),
        ("tolerations: [{operator: Sometimes}]", "tolerations[0].operator: \"Sometimes\" is none of"),
        ("tolerations: [{value: x}]", "tolerations[0]: without a key the operator must be Exists"),
        ("dnsConfig: {searches: [a_b]}", "dnsConfig.searches: \"a_b\" is not"),
        ("dnsConfig: {options: [{value: a}]}", "dnsConfig.options: every option needs a name"),
        ("securityContext: {sysctls: [{name: 'a b', value: '1'}]}", "sysctls[0]: \"a b\" is no name"),
        ("volumes: [{name: v, hostPath: {path: ''}}]", "volumes[0].hostPath.path: is required"),
        ("volumes: [{name: v, emptyDir: {sizeLimit: -1}}]", "emptyDir.sizeLimit: must not be negative"),
    ] {
        let message = reported(spec, "");
        assert!(message.starts_with("invalid Pod: spec.") && message.contains(expected), "{spec}: {message}");
    }
    for good in [
        "dnsPolicy: None\n  dnsConfig: {nameservers: ['::1'], searches: [., _x.y.], options: [{name: ndots}]}",
        "hostAliases: [{ip: '::1', hostnames: [a.b]}]\n  hostNetwork: true",
        "hostUsers: false\n  hostNetwork: false",
        "hostUsers: true\n  hostNetwork: true\n  hostPID: true\n  hostIPC: true",
        "activeDeadlineSeconds: 5\n  os: {name: linux}\n  terminationGracePeriodSeconds: 0",
        "tolerations: [{operator: Exists}, {key: a, value: b}]\n  restartPolicy: Never",
        "securityContext: {sysctls: [{name: net.ipv4.ip_forward, value: '1'}], seccompProfile: {type: RuntimeDefault}}",
    ] {
        assert_eq!(reported(good, ""), "", "{good}");
    }
}

#[test]
fn what_the_api_server_refuses_of_a_container_is_refused() {
    for (container, expected) in [
        ("restartPolicy: Sometimes", ".restartPolicy: \"Sometimes\" is none of Always, OnFailure, Never"),
        ("restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]", "needs a restartPolicy"),
        ("restartPolicy: Never\n    restartPolicyRules: [{action: Restart}]", "[0].exitCodes: is required"),
        ("securityContext: {procMount: Unmasked}", "procMount: `hostUsers` must be false to use `Unmasked`"),
        ("ports: [{containerPort: 1, name: HTTP}]", ".ports[0]: \"HTTP\" is no name of a port"),
        ("ports: [{containerPort: 1, name: a}, {containerPort: 2, name: a}]", "another port named \"a\""),
        ("ports: [{containerPort: 1, hostPort: 5}, {containerPort: 2, hostPort: 5}]", "hostPort 5 is used twice"),
        ("ports: [{containerPort: 1, hostIP: x}]", ".hostIP: \"x\" is no IP address"),
        ("env: [{name: A=B}]", ".env[0]: the name must be filled"),
        ("env: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", "cannot be combined"),
        ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.x}}}]", "fieldPath \"spec.x\""),
        ("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.x}}}]", "resource \"limits.x\""),
        ("env: [{name: A, valueFrom: {}}]", "exactly one source"),
        ("resources: {limits: {cpu: 1}, requests: {cpu: 2}}", "requests.cpu: must not be more than the limit"),
        ("resources: {limits: {cpus: 1}}", "limits.cpus: no resource of this name"),
        ("resources: {limits: {memory: -1}}", "limits.memory: must not be negative"),
        ("livenessProbe: {httpGet: {port: 80}, exec: {command: [a]}}", "exactly one of"),
        ("livenessProbe: {httpGet: {port: 0}}", ".httpGet.port: must be 1 to 65535"),
        ("livenessProbe: {httpGet: {port: 80, scheme: FTP}}", ".scheme: \"FTP\" is none of HTTP, HTTPS"),
        ("livenessProbe: {httpGet: {port: 80, httpHeaders: [{name: 'a b', value: c}]}}", "no name of a header"),
        ("livenessProbe: {tcpSocket: {port: '80'}}", ".tcpSocket.port: "),
        ("livenessProbe: {grpc: {port: 70000}}", "grpc.port must be"),
        ("livenessProbe: {exec: {}}", ".exec.command: is required"),
        ("livenessProbe: {exec: {command: [a]}, successThreshold: 2}", "successThreshold must be 1"),
        ("livenessProbe: {exec: {command: [a]}, timeoutSeconds: -1}", ".timeoutSeconds: must not be negative"),
        ("startupProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 0}", "must be 1 or more"),
        ("readinessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 5}", "for liveness and startup"),
        ("lifecycle: {preStop: {}}", ".lifecycle.preStop: must have exactly one"),
        ("lifecycle: {preStop: {sleep: {seconds: 31}}}", "sleep.seconds must be 0 to the pod's grace period (30)"),
        ("lifecycle: {postStart: {tcpSocket: {port: 1}}}", "tcpSocket does nothing in a hook"),
        ("terminationMessagePolicy: Never", ".terminationMessagePolicy: \"Never\" is none of"),
    ] {
        let message = reported("", container);
        assert!(message.starts_with("invalid Pod: spec.containers[0].") && message.contains(expected), "{message}");
    }
    for good in [
        "restartPolicy: OnFailure",
        "restartPolicy: Never\n    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]",
        "livenessProbe: {grpc: {port: 1}, terminationGracePeriodSeconds: 1}",
        "lifecycle: {preStop: {sleep: {seconds: 30}}, postStart: {httpGet: {port: http}}}",
        "ports: [{containerPort: 1, name: http}, {containerPort: 1, protocol: UDP}]",
        "env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['a']\"}}}, {name: 'a b', value: ''}]",
        "resources: {limits: {x.io/gpu: 1, hugepages-2Mi: 2Mi, cpu: 0.5}, requests: {cpu: 500m}}",
    ] {
        assert_eq!(reported("restartPolicy: Never", good), "", "{good}");
    }
    let own_users = reported("hostUsers: false", "securityContext: {procMount: Unmasked}");
    assert_eq!(own_users, "", "its /proc is the pod's own");
    let init = |lines: &str| reported(&format!("initContainers: [{{name: i, image: 'x:1', {lines}}}]"), "");
    assert!(init("lifecycle: {preStop: {sleep: {seconds: 1}}}").contains("an init container may not have hooks"));
    assert!(init("livenessProbe: {grpc: {port: 1}}").contains("an init container may not have probes"));
    assert_eq!(init("restartPolicy: Always, lifecycle: {preStop: {sleep: {seconds: 1}}}"), "");
}

#[test]
fn host_ports_clash_within_the_main_containers_and_within_each_init_container() {
    let port = |rest: &str| format!("ports: [{{containerPort: 80, hostPort: 80{rest}}}]");
    let other = |name: &str, rest: &str| format!("{{name: {name}, image: 'x:1', {}}}", port(rest));
    let (i, j) = (other("i", ""), other("j", ""));
    let sidecar = format!("{{name: s, image: 'x:1', restartPolicy: Always, {}}}", port(""));
    for inits in [format!("[{i}]"), format!("[{i}, {j}]"), format!("[{sidecar}, {i}]")] {
        assert_eq!(reported(&format!("initContainers: {inits}"), &port("")), "", "one after the other: {inits}");
        assert_eq!(
            reported(&format!("hostNetwork: true\n  initContainers: {inits}"), "ports: [{containerPort: 80}]"),
            ""
        );
    }
    let two = |first: &str, second: &str| {
        reported(
            "",
            &format!(
                "ports: [{{containerPort: 80, hostPort: 80{first}}}, {{containerPort: 81, hostPort: 80{second}}}]"
            ),
        )
    };
    let twice = "invalid Pod: spec.containers[0].ports: hostPort 80 is used twice";
    for (first, second, clash) in [
        ("", "", true),
        ("", ", protocol: TCP", true),
        (", protocol: ''", ", protocol: TCP", true),
        ("", ", protocol: UDP", false),
        (", protocol: SCTP", ", protocol: UDP", false),
        ("", ", hostIP: ''", true),
        ("", ", hostIP: 127.0.0.1", false),
        (", hostIP: 127.0.0.1", ", hostIP: 127.0.0.1", true),
        (", hostIP: 127.0.0.1", ", hostIP: 0.0.0.0", false),
    ] {
        assert_eq!(two(first, second), if clash { twice } else { "" }, "{first} {second}");
    }
    let mains = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{i}, {j}]}}\n");
    assert!(read(&mains).unwrap_err().to_string().contains("containers[1].ports: hostPort 80 is used twice"));
    let within = "[{name: i, image: 'x:1', ports: [{containerPort: 1, hostPort: 5}, {containerPort: 2, hostPort: 5}]}]";
    assert!(
        reported(&format!("initContainers: {within}"), "")
            .contains("initContainers[0].ports: hostPort 5 is used twice")
    );
}

#[test]
fn a_negative_grace_period_is_one_second() {
    let of = |grace: &str| pod_with(&format!("terminationGracePeriodSeconds: {grace}"), "").spec;
    for (grace, expected) in [("-1", 1), ("-9223372036854775808", 1), ("0", 0), ("7", 7), ("null", 30)] {
        assert_eq!(of(grace).termination_grace_period_seconds, Some(expected), "{grace}");
    }
    let hook = "lifecycle: {preStop: {sleep: {seconds: 2}}}";
    let message = reported("terminationGracePeriodSeconds: -5", hook);
    assert!(message.contains("sleep.seconds must be 0 to the pod's grace period (1)"), "{message}");
    let message = reported("", "livenessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: -1}");
    assert!(message.contains("terminationGracePeriodSeconds must be 1 or more"), "a probe's is refused: {message}");
}

#[test]
fn only_the_name_cap_sys_admin_contradicts_no_new_privileges() {
    let with = |name: &str| {
        let context = "allowPrivilegeEscalation: false, privileged: false";
        reported("", &format!("securityContext: {{{context}, capabilities: {{add: [{name}], drop: [ALL]}}}}"))
    };
    for name in ["SYS_ADMIN", "sys_admin", "cap_sys_admin", "NET_ADMIN", "MY_SYS_ADMIN"] {
        assert_eq!(with(name), "", "{name}");
    }
    assert!(with("CAP_SYS_ADMIN").contains("cannot be false with privileged or CAP_SYS_ADMIN"));
}

#[test]
fn a_relative_path_in_a_container_is_below_the_root() {
    for (path, expected) in [
        ("/data", "/data"),
        ("/data/../x/", "/data/../x/"),
        ("data/x", "/data/x"),
        ("./data//x/", "/data/x"),
        ("data/../x", "/x"),
        ("../x", "/x"),
        (".", "/"),
        ("a:b", "/a:b"),
    ] {
        assert_eq!(container_path(path), expected, "{path}");
    }
}

#[test]
fn an_empty_text_is_absent_where_go_cannot_tell_and_a_value_where_it_can() {
    let pod = pod_with(
        "hostname: ''\n  restartPolicy: ''\n  dnsPolicy: ''\n  subdomain: ''\n  schedulerName: ''",
        "imagePullPolicy: ''\n    terminationMessagePath: ''\n    terminationMessagePolicy: ''\n    ports: [{containerPort: 1, \
         protocol: '', hostIP: ''}]\n    livenessProbe: {httpGet: {port: 1, path: '', scheme: '', host: ''}}\n    lifecycle: \
         {preStop: {httpGet: {port: 1, path: '', scheme: ''}}}",
    );
    let plain = pod_with(
        "",
        "ports: [{containerPort: 1}]\n    livenessProbe: {httpGet: {port: 1}}\n    lifecycle: {preStop: {httpGet: {port: 1}}}",
    );
    assert_eq!(pod.spec, plain.spec);
    assert_eq!((pod.hostname().as_str(), pod.spec.restart_policy.as_deref()), ("p-node1", Some("Always")));
    for (spec, container) in [
        ("", "securityContext: {procMount: ''}"),
        ("", "restartPolicy: ''"),
        ("volumes: [{name: v, emptyDir: {}}]", "volumeMounts: [{name: v, mountPath: /v, mountPropagation: ''}]"),
        ("volumes: [{name: v, emptyDir: {}}]", "volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: ''}]"),
        ("securityContext: {fsGroupChangePolicy: ''}", ""),
        ("securityContext: {seccompProfile: {type: ''}}", ""),
        ("os: {name: ''}", ""),
        ("runtimeClassName: ''", ""),
        ("preemptionPolicy: ''", ""),
        ("hostnameOverride: ''", ""),
        ("securityContext: {seLinuxChangePolicy: ''}", ""),
        ("securityContext: {seccompProfile: {type: RuntimeDefault, localhostProfile: ''}}", ""),
        ("securityContext: {appArmorProfile: {type: RuntimeDefault, localhostProfile: ''}}", ""),
        ("", "lifecycle: {stopSignal: ''}"),
        ("", "livenessProbe: {httpGet: {port: ''}}"),
        ("", "resources: {limits: {cpu: ''}}"),
    ] {
        assert!(reported(spec, container).starts_with("invalid Pod"), "{spec}{container}");
    }
}

#[test]
fn labels_and_annotations_are_checked_and_no_pod_may_claim_to_be_a_mirror() {
    let with =
        |metadata: &str| read(&POD.replace("name: a", metadata)).map_or_else(|e| e.to_string(), |_| String::new());
    assert_eq!(with("name: a, labels: {app.kubernetes.io/name: a_B.c, x: ''}, annotations: {Some/Key: any thing}"), "");
    assert!(with("name: a, labels: {'a b': c}").contains("\"a b\" is no key of a label"));
    assert!(with("name: a, labels: {a: 'b c'}").contains("\"b c\" is no value of a label"));
    assert!(with("name: a, annotations: {'a b': c}").contains("no key of an annotation"));
    assert!(with("name: a, annotations: {kubernetes.io/config.mirror: x}").contains("copy of a static pod"));
}

#[test]
fn messages_stay_short_whatever_is_in_the_manifest() {
    let long = "A".repeat(100_000);
    let containers = format!("{{name: {long}, image: x}}, ").repeat(50);
    let many =
        read(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{containers}]}}\n"));
    let message = many.unwrap_err().to_string();
    assert!(message.len() < 5000 && message.ends_with("; and 79 more"), "{} {message}", message.len());
    for text in [format!("kind: {long}\n"), format!("kind: Pod\napiVersion: v1\nmetadata: {long}\n"), long] {
        let message = read(&text).unwrap_err().to_string();
        assert!(message.len() < 1000, "{} {message}", message.len());
    }
}

#[test]
fn what_is_made_to_choke_a_reader_is_refused_at_once() {
    let lol = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
        let last = format!("*a{}, ", n - 1).repeat(10);
        format!("{text}a{n}: &a{n} [{last}]\n")
    });
    let deep = 100_000;
    for text in [
        lol,
        "[".repeat(deep),
        "{a: ".repeat(deep),
        "{\"a\":".repeat(deep),
        format!("{{\"a\":{}", "[".repeat(deep)),
        "- ".repeat(deep),
        "? ".repeat(deep),
        (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        "&a ".repeat(deep),
        "!x ".repeat(deep),
        "---\n".repeat(deep),
        format!("{}x", "\n".repeat(deep)),
    ] {
        let began = crate::host::clock::Instant::now();
        // The agent reads on threads with this much stack.
        let read = std::thread::Builder::new().stack_size(2 << 20).spawn(move || read(&text).is_err());
        assert!(read.unwrap().join().unwrap());
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }
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
