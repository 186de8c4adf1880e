//! Which container or pod a path means.

use http::{Response, StatusCode};

use crate::agent::board::Entry;
use crate::agent::control::report::StateReport;
use crate::agent::server::http::{Body, text_response};

/// What a path names: `NAMESPACE/POD[/UID][/CONTAINER]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Named<'p> {
    namespace: &'p str,
    /// The pod's name, with the node's suffix.
    pub pod: &'p str,
    uid: Option<&'p str>,
}

/// Why there is nothing to stream from, in the kubelet's words.
#[derive(Debug, PartialEq, Eq)]
pub enum Absent {
    /// The path is none.
    Path,
    /// No such pod.
    Pod,
    /// No such container runs.
    Container(String),
}

impl From<Absent> for Response<Body> {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Path => text_response(StatusCode::NOT_FOUND, "404 page not found\n"),
            Absent::Pod => text_response(StatusCode::NOT_FOUND, "pod does not exist"),
            Absent::Container(name) => {
                text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({name:?})"))
            }
        }
    }
}

/// A path that ends with a container.
pub fn container(path: &str) -> Result<(Named<'_>, &str), Absent> {
    match path.split('/').collect::<Vec<_>>()[..] {
        [namespace, pod, container] if good(&[namespace, pod, container]) => {
            Ok((Named { namespace, pod, uid: None }, container))
        }
        [namespace, pod, uid, container] if good(&[namespace, pod, uid, container]) => {
            Ok((Named { namespace, pod, uid: Some(uid) }, container))
        }
        _ => Err(Absent::Path),
    }
}

/// A path that ends with a pod.
pub fn pod(path: &str) -> Result<Named<'_>, Absent> {
    match path.split('/').collect::<Vec<_>>()[..] {
        [namespace, pod] if good(&[namespace, pod]) => Ok(Named { namespace, pod, uid: None }),
        [namespace, pod, uid] if good(&[namespace, pod, uid]) => Ok(Named { namespace, pod, uid: Some(uid) }),
        _ => Err(Absent::Path),
    }
}

fn good(parts: &[&str]) -> bool {
    parts.iter().all(|part| !part.is_empty())
}

impl Named<'_> {
    /// The pod of this name. Its UID, if it is given, is that of the manifest, or that of its mirror in the API, of which
    /// `local` says whose mirror it is.
    pub fn find<'e>(&self, pods: &'e [Entry], local: impl Fn(&str) -> String) -> Result<&'e Entry, Absent> {
        let uid = self.uid.map(local);
        let is_meant = |entry: &&Entry| {
            let report = &entry.report;
            let this = uid.as_ref().is_none_or(|uid| *uid == report.uid);
            report.namespace == self.namespace && report.name == self.pod && this
        };
        pods.iter().find(is_meant).ok_or(Absent::Pod)
    }
}

/// The runtime's id of a container of a pod, which runs.
pub fn running(entry: &Entry, container: &str) -> Result<String, Absent> {
    let found = entry.report.containers.iter().find(|one| one.name == container);
    let running = found.filter(|one| matches!(one.state, StateReport::Running { .. }));
    running.and_then(|one| one.id.clone()).ok_or_else(|| Absent::Container(container.to_owned()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::agent::board::tests::entry;
    use crate::agent::control::report::ContainerReport;

    fn pods() -> Vec<Entry> {
        let container = |name: &str, state: StateReport| ContainerReport {
            name: name.into(),
            init: false,
            image: "i".into(),
            id: Some(format!("{name}-id")),
            state,
            last_termination: None,
            started: true,
            ready: true,
            healthy: true,
            restarts: 0,
            probe_message: None,
        };
        let mut one = entry(true, 1);
        let waits = StateReport::Waiting { reason: "CrashLoopBackOff".into(), message: String::new() };
        one.report.containers = vec![
            container("runs", StateReport::Running { started_at: Timestamp::UNIX_EPOCH }),
            container("waits", waits),
        ];
        vec![one]
    }

    #[test]
    fn a_container_is_found_by_its_pods_name_and_either_uid() {
        let pods = pods();
        let mirror = |uid: &str| if uid == "mirror" { "u".to_owned() } else { uid.to_owned() };
        for path in ["default/p-n/runs", "default/p-n/u/runs", "default/p-n/mirror/runs"] {
            let (named, container) = container(path).unwrap();
            assert_eq!(running(named.find(&pods, mirror).unwrap(), container).unwrap(), "runs-id", "{path}");
        }
        for path in ["default/q/runs", "other/p-n/runs", "default/p-n/stale/runs"] {
            let (named, _) = container(path).unwrap();
            assert_eq!(named.find(&pods, mirror).err(), Some(Absent::Pod), "{path}");
        }
        for name in ["waits", "none"] {
            assert_eq!(running(&pods[0], name), Err(Absent::Container(name.to_owned())));
        }
        for path in ["", "a", "a/b", "a//c", "a/b/c/d/e"] {
            assert_eq!(container(path), Err(Absent::Path), "{path}");
        }
        assert!(pod("default/p-n/u").unwrap().find(&pods, str::to_owned).is_ok());
        assert_eq!(pod("default"), Err(Absent::Path));
    }

    #[test]
    fn what_is_missing_is_said_in_the_kubelets_words() {
        let status = |absent: Absent| Response::<Body>::from(absent).status().as_u16();
        assert_eq!((status(Absent::Pod), status(Absent::Container("c".into()))), (404, 500));
    }
}
