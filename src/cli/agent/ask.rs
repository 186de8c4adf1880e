//! What the commands share that ask a running agent.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use crate::agent::control::{ControlError, PodView};
use crate::cli::Globals;
use crate::cli::failure::Hint;
use crate::host::paths;

/// Which agent is asked.
#[derive(Debug, clap::Args)]
pub struct Socket {
    /// Control socket of the agent [default: /run/kubeboot/agent.sock]
    #[arg(long, value_name = "PATH", alias = "socket")]
    control_socket: Option<PathBuf>,
}

impl Socket {
    /// The path of the socket.
    pub fn path(&self, globals: &Globals) -> PathBuf {
        self.control_socket.clone().unwrap_or_else(|| globals.paths().on_host(paths::CONTROL_SOCKET))
    }
}

/// What an agent answered; one that does not run is told with what to do.
pub fn answered<T>(answer: Result<T, ControlError>) -> anyhow::Result<T> {
    answer.map_err(|error| {
        let gone = matches!(error, ControlError::NotRunning { .. });
        let error = anyhow::Error::new(error);
        if !gone {
            return error;
        }
        error.context(Hint::new(
            "start the agent with `systemctl start kubelet`, or by hand with `kubeboot agent --pod-manifest-path DIR`; one with \
             another root directory is asked by its --control-socket",
        ))
    })
}

/// The pod that is meant by `[NAMESPACE/]NAME`, the name with or without the node's behind it.
///
/// # Errors
/// That there is none, or more than one, with those that could have been meant.
pub fn find<'a>(pods: &'a [PodView], wanted: &str) -> anyhow::Result<&'a PodView> {
    let (namespace, name) = match wanted.split_once('/') {
        // As kubectl takes it.
        Some(("pod" | "pods" | "po", name)) => (None, name),
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, wanted),
    };
    let is_meant = |view: &&PodView| {
        let node = view.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let own = view.report.name.as_str();
        let named = own == name || own.strip_suffix(node).and_then(|own| own.strip_suffix('-')) == Some(name);
        named && namespace.is_none_or(|namespace| view.report.namespace == namespace)
    };
    let found: Vec<&PodView> = pods.iter().filter(is_meant).collect();
    let names = |views: &[&PodView]| {
        let names = views.iter().map(|view| format!("{}/{}", view.report.namespace, view.report.name));
        names.collect::<Vec<_>>().join(", ")
    };
    match found[..] {
        [one] => Ok(one),
        [] if pods.is_empty() => Err(anyhow!("the agent runs no pods")),
        [] => {
            let all: Vec<&PodView> = pods.iter().collect();
            Err(anyhow!("no pod is called {wanted}")).context(Hint::new(format!("the agent runs {}", names(&all))))
        }
        _ => Err(anyhow!("{wanted} may be any of {}", names(&found))).context(Hint::new("name it as NAMESPACE/NAME")),
    }
}

/// Terminals interpret control characters: a message may hold any.
pub fn clean(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    use super::*;
    use crate::testing::report::pod;

    fn view(namespace: &str, name: &str) -> PodView {
        let mut report = pod(name, "hash");
        report.namespace = namespace.into();
        let spec = PodSpec { node_name: Some("cp1".into()), ..PodSpec::default() };
        PodView { pod: Pod { spec: Some(spec), ..Pod::default() }, report }
    }

    #[test]
    fn a_pod_is_found_by_every_name_it_is_called_by() {
        let pods = [view("default", "web"), view("other", "web"), view("default", "etcd")];
        for wanted in ["etcd", "etcd-cp1", "pod/etcd", "default/etcd"] {
            assert_eq!(find(&pods, wanted).unwrap().report.name, "etcd-cp1", "{wanted}");
        }
        assert_eq!(find(&pods, "other/web").unwrap().report.namespace, "other");
        let several = format!("{:#}", find(&pods, "web").err().unwrap());
        assert!(several.contains("default/web-cp1, other/web-cp1"), "{several}");
        let none = find(&pods, "etc").err().unwrap();
        assert!(none.downcast_ref::<Hint>().unwrap().to_string().contains("default/etcd-cp1"));
        assert_eq!(find(&[], "web").err().unwrap().to_string(), "the agent runs no pods");
    }
}
