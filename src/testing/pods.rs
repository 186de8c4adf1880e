//! Arbitrary pods: every field that the agent reads, with values that are odd, huge, negative, empty or plain wrong more
//! often than anybody's. Bytes choose them, so that a fuzzer can learn what leads where.

use serde_json::{Map, Value, json};

/// Bytes that choose. Used up, they always choose the first.
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// The choices of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left to choose by.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % count.max(1)
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn integer(&mut self) -> i64 {
        let all = [0, 1, 2, 5, 30, -1, 255, 65_535, 65_536, 86_400, i64::from(i32::MAX), i64::from(i32::MIN)];
        match self.below(16) {
            12 => i64::MAX,
            13 => i64::MIN,
            14 => i64::MAX / 1_000_000_000 + 1,
            15 => i64::from(u32::MAX),
            n => all[n],
        }
    }

    fn text(&mut self) -> Value {
        let long = "a".repeat(300);
        let all: [&str; 14] =
            ["a", "", "c", "main", "x-y", "A_b.c", "$(A)", "$$(", "..", "/", "a/b", "\u{fc}\n", "0", &long];
        json!(self.of(&all))
    }

    fn quantity(&mut self) -> Value {
        let all =
            ["1", "100m", "64Mi", "0", "-1", "1e30", "9223372036854775808", "0.0000001", "5E", "7n", "", "Ki", "x"];
        if self.below(8) == 7 { json!(self.integer()) } else { json!(self.of(&all)) }
    }
}

type Make = fn(&mut Choices<'_>) -> Value;

/// A field and what may be in it. Most are left out: with all of them hardly any pod would be valid.
type Fields = [(&'static str, Make)];

fn object(choices: &mut Choices<'_>, fields: &Fields) -> Value {
    let mut object = Map::new();
    for (name, make) in fields {
        if choices.below(8) == 1 {
            object.insert((*name).to_owned(), make(choices));
        }
    }
    Value::Object(object)
}

fn list(choices: &mut Choices<'_>, most: usize, make: Make) -> Value {
    (0..choices.below(most + 1)).map(|_| make(choices)).collect()
}

fn map(choices: &mut Choices<'_>, make: Make) -> Value {
    let mut map = Map::new();
    for _ in 0..choices.below(4) {
        let key = choices.text();
        map.insert(key.as_str().unwrap_or_default().to_owned(), make(choices));
    }
    Value::Object(map)
}

fn integer(choices: &mut Choices<'_>) -> Value {
    json!(choices.integer())
}

/// What an `int32` holds.
fn small(choices: &mut Choices<'_>) -> Value {
    json!(i32::try_from(choices.integer()).unwrap_or(i32::MAX))
}

fn boolean(choices: &mut Choices<'_>) -> Value {
    json!(choices.below(2) == 1)
}

fn text(choices: &mut Choices<'_>) -> Value {
    choices.text()
}

fn texts(choices: &mut Choices<'_>) -> Value {
    list(choices, 3, text)
}

fn port(choices: &mut Choices<'_>) -> Value {
    if choices.below(2) == 1 { choices.text() } else { json!(choices.of(&[1, 80, 0, -1, 65_536, i32::MAX])) }
}

fn path(choices: &mut Choices<'_>) -> Value {
    json!(choices.of(&["/v", "/", "", "v", "/v/../w", "/a:b", "/dev/termination-log", "/etc/hosts"]))
}

fn resources(choices: &mut Choices<'_>) -> Value {
    let amounts: Make = |choices| {
        let names = ["cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "a.b/c", "pods", ""];
        let mut map = Map::new();
        for _ in 0..choices.below(4) {
            map.insert(choices.of(&names).to_owned(), choices.quantity());
        }
        Value::Object(map)
    };
    object(choices, &[("requests", amounts), ("limits", amounts), ("claims", texts)])
}

fn http_get(choices: &mut Choices<'_>) -> Value {
    let fields: [(&str, Make); 4] = [
        ("path", path),
        ("host", text),
        ("scheme", |choices| json!(choices.of(&["HTTP", "HTTPS", "", "x"]))),
        ("httpHeaders", |choices| list(choices, 2, |choices| object(choices, &[("name", text), ("value", text)]))),
    ];
    let mut get = object(choices, &fields);
    get["port"] = port(choices);
    get
}

fn handler(choices: &mut Choices<'_>) -> Value {
    match choices.below(6) {
        0 => json!({"exec": {"command": texts(choices)}}),
        1 => json!({"httpGet": http_get(choices)}),
        2 => json!({"tcpSocket": {"port": port(choices), "host": text(choices)}}),
        3 => json!({"sleep": {"seconds": integer(choices)}}),
        4 => json!({"grpc": {"port": small(choices), "service": text(choices)}}),
        _ => json!({}),
    }
}

fn probe(choices: &mut Choices<'_>) -> Value {
    let mut probe = handler(choices);
    let numbers: [(&str, Make); 6] = [
        ("initialDelaySeconds", small),
        ("periodSeconds", small),
        ("timeoutSeconds", small),
        ("successThreshold", small),
        ("failureThreshold", small),
        ("terminationGracePeriodSeconds", integer),
    ];
    if let (Value::Object(probe), Value::Object(more)) = (&mut probe, object(choices, &numbers)) {
        probe.extend(more);
    }
    probe
}

fn lifecycle(choices: &mut Choices<'_>) -> Value {
    let signal: Make = |choices| json!(choices.of(&["SIGTERM", "SIGKILL", "SIGRTMAX+1", ""]));
    object(choices, &[("postStart", handler), ("preStop", handler), ("stopSignal", signal)])
}

fn security(choices: &mut Choices<'_>) -> Value {
    let capabilities: Make = |choices| object(choices, &[("add", texts), ("drop", texts)]);
    let profile: Make = |choices| {
        let kind: Make = |choices| json!(choices.of(&["RuntimeDefault", "Unconfined", "Localhost", "", "x"]));
        object(choices, &[("type", kind), ("localhostProfile", path)])
    };
    object(
        choices,
        &[
            ("runAsUser", integer),
            ("runAsGroup", integer),
            ("runAsNonRoot", boolean),
            ("fsGroup", integer),
            ("supplementalGroups", |choices| list(choices, 3, integer)),
            ("privileged", boolean),
            ("allowPrivilegeEscalation", boolean),
            ("readOnlyRootFilesystem", boolean),
            ("capabilities", capabilities),
            ("seccompProfile", profile),
            ("appArmorProfile", profile),
            ("procMount", |choices| json!(choices.of(&["Default", "Unmasked", ""]))),
            ("sysctls", |choices| list(choices, 2, |choices| object(choices, &[("name", text), ("value", text)]))),
            ("seLinuxOptions", |choices| object(choices, &[("level", text), ("type", text)])),
        ],
    )
}

fn variable(choices: &mut Choices<'_>) -> Value {
    let from: Make = |choices| match choices.below(4) {
        0 => {
            json!({"fieldRef": {"fieldPath": choices.of(&["metadata.name", "status.podIP", "metadata.labels['a']", "x", ""])}})
        }
        1 => {
            json!({"resourceFieldRef": {"resource": choices.of(&["limits.cpu", "requests.memory", "x"]), "divisor": choices.quantity(), "containerName": choices.text()}})
        }
        2 => json!({"configMapKeyRef": {"name": "a", "key": choices.text(), "optional": boolean(choices)}}),
        _ => json!({"secretKeyRef": {"name": "a", "key": choices.text()}}),
    };
    object(choices, &[("name", text), ("value", text), ("valueFrom", from)])
}

fn ports(choices: &mut Choices<'_>) -> Value {
    let protocol: Make = |choices| json!(choices.of(&["TCP", "UDP", "SCTP", "", "x"]));
    object(
        choices,
        &[("name", text), ("containerPort", small), ("hostPort", small), ("protocol", protocol), ("hostIP", text)],
    )
}

fn rule(choices: &mut Choices<'_>) -> Value {
    let codes: Make = |choices| {
        let operator: Make = |choices| json!(choices.of(&["In", "NotIn", ""]));
        object(choices, &[("operator", operator), ("values", |choices| list(choices, 3, small))])
    };
    object(choices, &[("action", |choices| json!(choices.of(&["Restart", "x"]))), ("exitCodes", codes)])
}

fn mount(choices: &mut Choices<'_>) -> Value {
    let mut mount = object(
        choices,
        &[
            ("subPath", path),
            ("subPathExpr", text),
            ("readOnly", boolean),
            ("recursiveReadOnly", |choices| json!(choices.of(&["Enabled", "IfPossible", "x"]))),
            ("mountPropagation", |choices| json!(choices.of(&["None", "HostToContainer", "Bidirectional", "x"]))),
        ],
    );
    (mount["name"], mount["mountPath"]) = (json!(choices.of(&["v", "w", ""])), path(choices));
    mount
}

fn item(choices: &mut Choices<'_>) -> Value {
    object(choices, &[("key", text), ("path", path), ("mode", small)])
}

fn file(choices: &mut Choices<'_>) -> Value {
    let mut file = object(choices, &[("mode", small)]);
    (file["path"], file["fieldRef"]) = (path(choices), json!({"fieldPath": choices.of(&["metadata.name", "x"])}));
    file
}

fn container(choices: &mut Choices<'_>) -> Value {
    let mut fields: Vec<(&str, Make)> = vec![
        ("command", texts),
        ("args", texts),
        ("workingDir", path),
        ("tty", boolean),
        ("stdin", boolean),
        ("stdinOnce", boolean),
        ("terminationMessagePath", path),
        ("terminationMessagePolicy", |choices| json!(choices.of(&["File", "FallbackToLogsOnError", "", "x"]))),
        ("imagePullPolicy", |choices| json!(choices.of(&["Always", "Never", "IfNotPresent", ""]))),
        ("restartPolicy", |choices| json!(choices.of(&["Always", "Never", "OnFailure", ""]))),
    ];
    fields.extend([
        ("ports", (|choices| list(choices, 2, ports)) as Make),
        ("env", |choices| list(choices, 3, variable)),
        ("resources", resources),
        ("securityContext", security),
        ("livenessProbe", probe),
        ("readinessProbe", probe),
        ("startupProbe", probe),
        ("lifecycle", lifecycle),
        ("volumeMounts", |choices| list(choices, 2, mount)),
        ("restartPolicyRules", |choices| list(choices, 2, rule)),
    ]);
    let mut container = object(choices, &fields);
    container["name"] = json!(choices.of(&["main", "side", "a", "", "A"]));
    container["image"] = json!(choices.of(&["x:1", "x:2", "missing:1", "", "A:b"]));
    container
}

/// Volumes that need nothing of the machine but a directory of the agent's own: no hostPath but the null device, and
/// nothing in memory, which would have to be mounted.
fn volume(choices: &mut Choices<'_>) -> Value {
    let source = match choices.below(6) {
        0 => json!({"emptyDir": {"sizeLimit": choices.quantity()}}),
        1 => json!({"hostPath": {"path": "/dev/null", "type": choices.of(&["", "CharDevice", "File", "x"])}}),
        2 => json!({"downwardAPI": {"items": list(choices, 2, file), "defaultMode": small(choices)}}),
        3 => json!({"configMap": {"name": "a", "items": list(choices, 2, item), "optional": boolean(choices)}}),
        4 => json!({"secret": {"secretName": "a", "defaultMode": small(choices), "optional": boolean(choices)}}),
        _ => json!({"projected": {"sources": [
            {"downwardAPI": {"items": list(choices, 2, file)}},
            {"serviceAccountToken": {"path": path(choices), "expirationSeconds": integer(choices)}}]}}),
    };
    let mut volume = source;
    volume["name"] = json!(choices.of(&["v", "w", ""]));
    volume
}

/// A Pod of the name `p`, as JSON, with whatever else the bytes choose.
pub fn pod(choices: &mut Choices<'_>) -> Value {
    let selector: Make = |choices| map(choices, text);
    let mut spec = object(
        choices,
        &[
            ("restartPolicy", |choices| json!(choices.of(&["Always", "OnFailure", "Never", ""]))),
            ("terminationGracePeriodSeconds", integer),
            ("activeDeadlineSeconds", integer),
            ("hostNetwork", boolean),
            ("hostPID", boolean),
            ("hostIPC", boolean),
            ("shareProcessNamespace", boolean),
            ("hostname", text),
            ("subdomain", text),
            ("setHostnameAsFQDN", boolean),
            ("dnsPolicy", |choices| json!(choices.of(&["ClusterFirst", "Default", "None", ""]))),
            ("dnsConfig", |choices| object(choices, &[("nameservers", texts), ("searches", texts)])),
            ("hostAliases", |choices| {
                list(choices, 2, |choices| object(choices, &[("ip", text), ("hostnames", texts)]))
            }),
            ("nodeSelector", selector),
            ("priorityClassName", |choices| json!(choices.of(&["system-node-critical", "x"]))),
            ("priority", small),
            ("securityContext", security),
            ("resources", resources),
            ("volumes", |choices| list(choices, 3, volume)),
            ("initContainers", |choices| list(choices, 2, container)),
            ("readinessGates", |choices| list(choices, 2, |choices| json!({"conditionType": choices.text()}))),
            ("overhead", |choices| json!({"cpu": choices.quantity()})),
        ],
    );
    let first = container(choices);
    spec["containers"] = list(choices, 2, container);
    if let Value::Array(containers) = &mut spec["containers"] {
        containers.insert(0, first);
    }
    let metadata: [(&str, Make); 4] = [
        ("namespace", |choices| json!(choices.of(&["default", "kube-system", "", "A"]))),
        ("labels", selector),
        ("annotations", selector),
        ("uid", text),
    ];
    let mut metadata = object(choices, &metadata);
    metadata["name"] = json!("p");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}
