//! Which leader election a container of a static pod takes part in, by its command line.
//!
//! kube-controller-manager keeps its lease when it ends (client-go's `ReleaseOnCancel` is off), and both components keep it
//! when they are killed: whoever comes next waits until it has seen nobody renew it for `leaseDurationSeconds`.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use super::{StaticPod, container_path};

/// A component with leader election, as it is without flags (`RecommendedDefaultLeaderElectionConfiguration` and the
/// component's own `v1alpha1.SetDefaults_`).
struct Component {
    /// Name of its program.
    program: &'static str,
    /// Name of its lease.
    lease: &'static str,
    /// Flags that say in another place or way what is read here of the command line, where it is left alone.
    elsewhere: &'static [&'static str],
}

const COMPONENTS: &[Component] = &[
    Component { program: "kube-controller-manager", lease: "kube-controller-manager", elsewhere: &["master"] },
    Component {
        program: "kube-scheduler",
        lease: "kube-scheduler",
        elsewhere: &["config", "master", "lock-object-name", "lock-object-namespace"],
    },
];

/// Namespace of the leases.
const NAMESPACE: &str = "kube-system";
/// The kind of lock that is a lease. Others, which are gone since Kubernetes 1.27, write an annotation of an Endpoints or a
/// ConfigMap besides.
const LEASES: &str = "leases";

/// An election for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    /// The kubeconfig by which the component reaches its API server, on the machine.
    pub kubeconfig: PathBuf,
    /// Namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
}

impl StaticPod {
    /// The election that a container takes part in: None for one that is no component or elects no leader, an error for one
    /// whose lease cannot be found by its command line.
    pub fn election(&self, container: &str) -> Option<Result<Election, String>> {
        let container = self.container(container).filter(|_| self.has_mirror())?;
        let command = container.command.iter().chain(&container.args).flatten().map(String::as_str);
        let mut words = command.clone();
        let program = Path::new(words.next()?).file_name()?.to_str()?;
        let component = COMPONENTS.iter().find(|one| one.program == program)?;
        let flags = Flags(words.take_while(|word| *word != "--").collect());
        if !flags.is_on("leader-elect") {
            return None;
        }
        Some(self.read(component, &flags, container))
    }

    fn read(&self, component: &Component, flags: &Flags<'_>, container: &Container) -> Result<Election, String> {
        if let Some(flag) = component.elsewhere.iter().find(|flag| flags.value(flag).is_some()) {
            return Err(format!("it has --{flag}"));
        }
        let value = |flag: &str, default: &str| match flags.value(flag).unwrap_or(default) {
            variable if variable.contains("$(") => Err(format!("its --{flag} is {variable}")),
            value => Ok(value.to_owned()),
        };
        let lock = value("leader-elect-resource-lock", LEASES)?;
        if lock != LEASES {
            return Err(format!("its --leader-elect-resource-lock is {lock}"));
        }
        let kubeconfig = value("kubeconfig", "")?;
        let on_host = self.on_host(container, &kubeconfig);
        Ok(Election {
            kubeconfig: on_host.ok_or_else(|| format!("its --kubeconfig {kubeconfig:?} is not on a hostPath"))?,
            namespace: value("leader-elect-resource-namespace", NAMESPACE)?,
            lease: value("leader-elect-resource-name", component.lease)?,
        })
    }

    /// Where a file of a container is on the machine: in its innermost mount, where that is one of a hostPath.
    fn on_host(&self, container: &Container, path: &str) -> Option<PathBuf> {
        let path = Path::new(path).is_absolute().then(|| Path::new(path))?;
        let mounts = container.volume_mounts.iter().flatten();
        let within = mounts.filter_map(|mount| {
            let rest = path.strip_prefix(&*container_path(&mount.mount_path)).ok()?;
            Some((mount, rest))
        });
        let (mount, rest) = within.min_by_key(|(_, rest)| rest.components().count())?;
        if mount.sub_path_expr.as_ref().is_some_and(|text| !text.is_empty()) {
            return None;
        }
        let volume = self.spec.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
        let mut found = PathBuf::from(&volume.host_path.as_ref()?.path);
        for part in [Path::new(mount.sub_path.as_deref().unwrap_or_default()), rest] {
            // What is empty would put a slash behind the name of a file.
            if !part.as_os_str().is_empty() {
                found.push(part);
            }
        }
        Some(found)
    }
}

/// The words of a command line behind its program, as Go's pflag reads them under Kubernetes' rule that `_` is `-`.
struct Flags<'a>(Vec<&'a str>);

impl<'a> Flags<'a> {
    /// The value of a flag that takes one: the last one counts.
    fn value(&self, flag: &str) -> Option<&'a str> {
        let mut given = self.0.iter().enumerate().filter_map(|(at, word)| {
            let (name, value) = split(word)?;
            (name == flag).then(|| value.or_else(|| self.0.get(at.saturating_add(1)).copied()))?
        });
        given.next_back()
    }

    /// Whether a flag that is on by default is.
    fn is_on(&self, flag: &str) -> bool {
        let mut given = self.0.iter().filter_map(|word| split(word).filter(|(name, _)| name == flag));
        let value = given.next_back().and_then(|(_, value)| value);
        !value.is_some_and(|value| ["0", "f", "F", "false", "FALSE", "False"].contains(&value))
    }
}

/// The name of a flag, and what stands behind its `=`.
fn split(word: &str) -> Option<(String, Option<&str>)> {
    let word = word.strip_prefix("--")?;
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    Some((name.replace('_', "-"), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::read;

    const CONF: &str = "/etc/kubernetes/controller-manager.conf";

    fn election(command: &str, mounts: &str) -> Option<Result<Election, String>> {
        let pod = read(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: m, namespace: kube-system}}\nspec:\n  containers:\n  - name: c\n    \
             image: x:1\n    command: [{command}]\n    volumeMounts: [{mounts}]\n  volumes:\n  - {{name: conf, hostPath: {{path: \
             {CONF}}}}}\n  - {{name: dir, hostPath: {{path: /srv/k8s/}}}}\n  - {{name: none, emptyDir: {{}}}}\n"
        ));
        pod.unwrap().election("c")
    }

    fn of(kubeconfig: &str, namespace: &str, lease: &str) -> Option<Result<Election, String>> {
        Some(Ok(Election { kubeconfig: kubeconfig.into(), namespace: namespace.into(), lease: lease.into() }))
    }

    #[test]
    fn the_lease_of_a_component_is_found_by_its_command_line() {
        let own = format!("{{name: conf, mountPath: {CONF}}}");
        let manager = |flags: &str| format!("kube-controller-manager, --kubeconfig={CONF}{flags}");
        let usual = of(CONF, "kube-system", "kube-controller-manager");
        let left = |why: &str| Some(Err(why.to_owned()));
        for (command, expected) in [
            (manager(""), usual.clone()),
            (manager(", --leader-elect"), usual.clone()),
            (manager(", --leader-elect=true, --v=2"), usual.clone()),
            (manager(", --leader-elect=false"), None),
            (manager(", --leader_elect=F"), None),
            (manager(", --leader-elect=false, --leader-elect=true"), usual.clone()),
            (manager(", --, --leader-elect=false"), usual.clone()),
            (format!("/usr/local/bin/kube-controller-manager, --kubeconfig, {CONF}"), usual.clone()),
            (manager(", --leader-elect-resource-name=a, --leader-elect-resource-namespace, b"), of(CONF, "b", "a")),
            (manager(", --leader-elect-resource-lock=leases"), usual.clone()),
            (
                manager(", --leader-elect-resource-lock=endpointsleases"),
                left("its --leader-elect-resource-lock is endpointsleases"),
            ),
            (manager(", '--leader-elect-resource-name=$(A)'"), left("its --leader-elect-resource-name is $(A)")),
            (manager(", --master=https://a:1"), left("it has --master")),
            (format!("kube-scheduler, --kubeconfig={CONF}"), of(CONF, "kube-system", "kube-scheduler")),
            (format!("kube-scheduler, --kubeconfig={CONF}, --config=/c"), left("it has --config")),
            ("kube-scheduler".to_owned(), left("its --kubeconfig \"\" is not on a hostPath")),
            (format!("kube-apiserver, --kubeconfig={CONF}"), None),
            (format!("sh, -c, kube-scheduler --kubeconfig={CONF}"), None),
        ] {
            assert_eq!(election(&command, &own), expected, "{command}");
        }
    }

    #[test]
    fn a_pod_of_the_api_servers_takes_part_in_none_whatever_its_command_is() {
        let mut pod = read(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: m}}\nspec:\n  containers: [{{name: c, image: 'x:1', command: \
             [kube-scheduler, --kubeconfig={CONF}], volumeMounts: [{{name: v, mountPath: {CONF}}}]}}]\n  volumes: [{{name: v, \
             hostPath: {{path: {CONF}}}}}]\n"
        ))
        .unwrap();
        assert!(matches!(pod.election("c"), Some(Ok(_))));
        let annotations = pod.metadata.annotations.as_mut().unwrap();
        annotations.insert(super::super::CONFIG_SOURCE.to_owned(), super::super::API_SOURCE.to_owned());
        assert_eq!(pod.election("c"), None);
    }

    #[test]
    fn a_kubeconfig_is_where_its_innermost_mount_is_from() {
        let command = "kube-scheduler, --kubeconfig=/etc/k/scheduler.conf";
        let at = |path: &str| of(path, "kube-system", "kube-scheduler");
        let nowhere = Some(Err("its --kubeconfig \"/etc/k/scheduler.conf\" is not on a hostPath".to_owned()));
        for (mounts, expected) in [
            ("{name: dir, mountPath: /etc/k}", at("/srv/k8s/scheduler.conf")),
            ("{name: dir, mountPath: /etc/k/, subPath: a/b}", at("/srv/k8s/a/b/scheduler.conf")),
            ("{name: dir, mountPath: /etc/k, subPathExpr: $(A)}", nowhere.clone()),
            ("{name: dir, mountPath: /etc}, {name: conf, mountPath: /etc/k/scheduler.conf}", at(CONF)),
            ("{name: dir, mountPath: /etc}, {name: none, mountPath: /etc/k}", nowhere.clone()),
            ("{name: dir, mountPath: /etc/kk}", nowhere),
        ] {
            assert_eq!(election(command, mounts), expected, "{mounts}");
        }
    }
}
