//! Manifests, from a small pod that a test changes where it matters.

use serde_json::{Value, json};

use super::image::{FOREVER, IMAGE};

/// A pod's manifest.
#[derive(Debug, Clone)]
pub struct Pod(Value);

impl Pod {
    /// A pod on the host's network with one container, `main`, that runs until it is told to end. A lone container on
    /// the host's network needs no sandbox, which makes it the quickest pod there is.
    pub fn new(name: &str) -> Self {
        let spec = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 5, "containers": []});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        Self(pod).container("main", FOREVER)
    }

    /// The name as it is in the manifest.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap()
    }

    /// Adds a main container that runs a script.
    pub fn container(self, name: &str, script: &str) -> Self {
        self.push("containers", container(name, script))
    }

    /// Adds an init container that runs a script.
    pub fn init(self, name: &str, script: &str) -> Self {
        self.push("initContainers", container(name, script))
    }

    /// Adds a restartable init container that runs a script.
    pub fn sidecar(self, name: &str, script: &str) -> Self {
        let mut sidecar = container(name, script);
        sidecar["restartPolicy"] = json!("Always");
        self.push("initContainers", sidecar)
    }

    /// Adds a hostPath volume and mounts it at `/VOLUME` in every container there is.
    pub fn mount(mut self, volume: &str, host_path: &std::path::Path) -> Self {
        for list in ["initContainers", "containers"] {
            for container in self.0["spec"][list].as_array_mut().into_iter().flatten() {
                let mount = json!({"name": volume, "mountPath": format!("/{volume}")});
                push(&mut container["volumeMounts"], mount);
            }
        }
        self.push("volumes", json!({"name": volume, "hostPath": {"path": host_path}}))
    }

    /// Sets a field of the pod's spec.
    pub fn spec(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0["spec"][field] = value.into();
        self
    }

    /// Sets a field of the pod's metadata.
    pub fn metadata(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0["metadata"][field] = value.into();
        self
    }

    /// Sets a field of the first main container.
    pub fn main(self, field: &str, value: impl Into<Value>) -> Self {
        self.of("containers", 0, field, value)
    }

    /// Sets a field of a container by its list and place.
    pub fn of(mut self, list: &str, index: usize, field: &str, value: impl Into<Value>) -> Self {
        self.0["spec"][list][index][field] = value.into();
        self
    }

    /// What the first main container runs.
    pub fn script(self, script: &str) -> Self {
        self.main("command", json!(["sh", "-c", script]))
    }

    /// One that the node needs, as kubeadm writes it.
    pub fn critical(self) -> Self {
        self.spec("priorityClassName", "system-node-critical").spec("priority", 2_000_001_000)
    }

    /// With a network of its own, and so with a sandbox.
    pub fn own_network(self) -> Self {
        self.spec("hostNetwork", false)
    }

    /// An environment variable of the first main container, to make the pod another one.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        push(&mut self.0["spec"]["containers"][0]["env"], json!({"name": name, "value": value}));
        self
    }

    /// The manifest as YAML.
    pub fn yaml(&self) -> String {
        crate::yaml::to_string(&self.0).unwrap()
    }

    /// The manifest as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap()
    }

    /// The manifest as a value, for lists.
    pub fn value(&self) -> Value {
        self.0.clone()
    }

    fn push(mut self, list: &str, value: Value) -> Self {
        push(&mut self.0["spec"][list], value);
        self
    }
}

fn push(list: &mut Value, value: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(value),
        None => *list = json!([value]),
    }
}

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]})
}
