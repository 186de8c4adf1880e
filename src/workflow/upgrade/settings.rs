//! What the components' command lines and the kubelet's settings say that the version they go to does not take. Pure:
//! manifests and settings in, findings out.

use serde_json::Value;

use super::manifest::{image_version, parse};
use super::plan::Step;
use super::prepare::Prepared;
use super::{UpgradeError, manifest};
use crate::config::spec::Arg;
use crate::etcd::Minor;
use crate::release::{
    FEATURE_GATES, Fate, KUBELET, KubernetesVersion, ReleaseMinor, Retired, retired_flag, retired_gate,
};
use crate::workflow::preflight::{Finding, Severity};
use crate::yaml;

/// Flags that the component does not start with.
pub const REMOVED_FLAGS: &str = "RemovedFlags";
/// Feature gates that the component does not start with.
pub const REMOVED_GATES: &str = "RemovedFeatureGates";
/// Flags and gates that it takes with a warning.
pub const DEPRECATED_FLAGS: &str = "DeprecatedFlags";

/// What is wrong with the settings of everything that the upgrade goes to, `version` being that of Kubernetes.
///
/// # Errors
/// A manifest that is none.
pub fn findings(prepared: &Prepared, version: Option<&KubernetesVersion>) -> Result<Vec<Finding>, UpgradeError> {
    let mut all = of_manifests(&prepared.steps, version)?;
    if let Some(version) = version {
        let config = prepared.kubelet_config.as_deref().unwrap_or_default();
        all.extend(of_kubelet(config, &prepared.spec.node.kubelet_extra_args, version.minor()));
    }
    Ok(all)
}

/// What is wrong with the settings of a worker's kubelet for a version: its KubeletConfiguration as it will be, and its flags.
pub fn of_worker(config: &[u8], flags: &[String], minor: u64) -> Vec<Finding> {
    let mut all = of_kubelet(config, &[], minor);
    all.extend(of_command(KUBELET, flags, (1, minor)).into_iter().filter(|one| !all.contains(one)).collect::<Vec<_>>());
    all
}

/// What is wrong with the gates of the kubelet, which follows the control plane to the version: in its KubeletConfiguration and
/// in the flags that the configuration gives it. One that cannot be read is another check's affair.
fn of_kubelet(config: &[u8], args: &[Arg], minor: u64) -> Vec<Finding> {
    let config: Value = yaml::to_value(&String::from_utf8_lossy(config)).unwrap_or_default();
    let of_config = config["featureGates"].as_object().into_iter().flatten();
    let of_config = of_config.filter_map(|(name, value)| Some((name.as_str(), value.as_bool()?)));
    let flag = args.iter().rev().find(|arg| arg.name == FEATURE_GATES).map_or("", |arg| arg.value.as_str());
    let mut all: Vec<Finding> = Vec::new();
    for (gate, value) in of_config.chain(gates(flag)) {
        let found = retired_gate(KUBELET, gate, value, minor)
            .map(|one| finding(KUBELET, &format!("the feature gate {gate}"), one, REMOVED_GATES));
        all.extend(found.filter(|one| !all.contains(one)));
    }
    all
}

/// What is wrong with the command lines of the manifests that the upgrade goes to.
///
/// The whole command line counts, whether a flag comes from `extraArgs`, from a patch or from the manifest that was there.
///
/// # Errors
/// A manifest that is none.
fn of_manifests(steps: &[Step], version: Option<&KubernetesVersion>) -> Result<Vec<Finding>, UpgradeError> {
    let mut all = Vec::new();
    for step in steps {
        let pod = parse(&step.file, &step.new)?;
        if let Some(minor) = minor_of(manifest::image(&pod), version.filter(|_| step.component != "etcd")) {
            all.extend(of_command(step.component, &command(&pod), minor));
        }
    }
    Ok(all)
}

/// The release that a component is of: its image's tag, else the version that was asked for.
fn minor_of(image: &str, version: Option<&KubernetesVersion>) -> Option<ReleaseMinor> {
    let tag = image_version(image).and_then(|tag| Minor::of(&tag)).map(|minor| (minor.major, minor.minor));
    tag.or_else(|| version.map(|version| (1, version.minor())))
}

/// The command line of the first container.
fn command(pod: &Value) -> Vec<String> {
    let words = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let all = words("/spec/containers/0/command").chain(words("/spec/containers/0/args"));
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The flags of a command line with their values: `--a=b`, `--a b` and `--a`, with one dash or two, as Go takes them.
fn flags(command: &[String]) -> Vec<(&str, &str)> {
    let name_of = |word: &'_ str| word.strip_prefix("--").or_else(|| word.strip_prefix('-')).map(str::len);
    let mut flags = Vec::new();
    for (at, word) in command.iter().enumerate() {
        let Some(length) = name_of(word).filter(|length| *length > 0) else { continue };
        let text = &word[word.len() - length..];
        let next = command.get(at + 1).filter(|next| !next.starts_with('-')).map_or("", String::as_str);
        flags.push(text.split_once('=').unwrap_or((text, next)));
    }
    flags
}

fn of_command(component: &'static str, command: &[String], minor: ReleaseMinor) -> Vec<Finding> {
    let mut all = Vec::new();
    for (flag, value) in flags(command) {
        if let Some(retired) = retired_flag(component, flag, minor) {
            all.push(finding(component, &format!("--{flag}"), retired, REMOVED_FLAGS));
        }
        if flag == FEATURE_GATES {
            for (gate, value) in gates(value) {
                let retired = retired_gate(component, gate, value, minor.1);
                all.extend(
                    retired.map(|one| finding(component, &format!("the feature gate {gate}"), one, REMOVED_GATES)),
                );
            }
        }
    }
    all
}

/// The gates of a value such as `A=true,kube:B=false`.
fn gates(value: &str) -> impl Iterator<Item = (&str, bool)> {
    value.split(',').filter_map(|one| {
        let (name, value) = one.trim().split_once('=')?;
        let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
        Some((name, value.parse().ok()?))
    })
}

/// Where a worker's kubelet has its flags from: the files of its service.
const WORKERS_FLAGS: &str =
    "of /var/lib/kubelet/kubeadm-flags.env, or of KUBELET_EXTRA_ARGS in /etc/default/kubelet or /etc/sysconfig/kubelet";

fn finding(component: &str, what: &str, retired: Retired, removed: &str) -> Finding {
    let Retired { fate, since: (major, minor), instead } = retired;
    let release = match component {
        "etcd" => format!("etcd {major}.{minor}"),
        _ => format!("Kubernetes {major}.{minor}"),
    };
    let remedy = match instead {
        "" => "take it out".to_owned(),
        instead => format!("use {instead}"),
    };
    let where_from = match component {
        KUBELET if what.starts_with("--") => WORKERS_FLAGS,
        KUBELET => "of the KubeletConfiguration's featureGates, or of kubeletExtraArgs",
        _ => "of the configuration's extraArgs, or of the patches",
    };
    let (check, severity, message) = match fate {
        Fate::Removed => (
            removed,
            Severity::Error,
            format!("{component} does not start with {what}, which {release} has removed: {remedy} ({where_from})"),
        ),
        Fate::Locked(only) => (
            removed,
            Severity::Error,
            format!(
                "{component} does not start with {what} at {}, which {release} has locked at {only}: take it out ({where_from})",
                !only
            ),
        ),
        Fate::Deprecated => (
            DEPRECATED_FLAGS,
            Severity::Warning,
            format!("{component} warns of {what}, which is deprecated or has no effect since {release}: {remedy}"),
        ),
    };
    Finding { check: check.to_owned(), severity, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::upgrade::target::file;

    fn step(component: &'static str, image: &str, command: &str) -> Step {
        let words = command.split_whitespace().map(|word| format!("\n    - {word}")).collect::<String>();
        let new = format!(
            "kind: Pod\nspec:\n  containers:\n  - name: {component}\n    image: {image}\n    command:\n    - {component}{words}\n"
        );
        Step {
            component,
            file: file(component),
            old: vec![],
            new: new.into_bytes(),
            old_image: "r/x:v1.36.2".into(),
            new_image: image.into(),
            data_dir: None,
        }
    }

    fn found(component: &'static str, image: &str, command: &str) -> Vec<String> {
        let version = "v1.37.1".parse().unwrap();
        let all = of_manifests(&[step(component, image, command)], Some(&version)).unwrap();
        all.iter().map(|one| format!("{:?} {one}", one.severity)).collect()
    }

    #[test]
    fn a_removed_flag_is_an_error_and_a_deprecated_one_a_warning() {
        let flag = "--experimental-initial-corrupt-check=true";
        assert_eq!(found("etcd", "r/etcd:3.5.16-0", flag), Vec::<String>::new());
        assert_eq!(
            found("etcd", "r/etcd:3.6.8-0", flag),
            [
                "Warning DeprecatedFlags: etcd warns of --experimental-initial-corrupt-check, which is deprecated or has no effect \
             since etcd 3.6: use --feature-gates=InitialCorruptCheck=true"
            ]
        );
        assert_eq!(
            found("etcd", "r/etcd:3.7.0-0", flag),
            [
                "Error RemovedFlags: etcd does not start with --experimental-initial-corrupt-check, which etcd 3.7 has removed: use \
             --feature-gates=InitialCorruptCheck=true (of the configuration's extraArgs, or of the patches)"
            ]
        );
        assert_eq!(found("etcd", "r/etcd:mine", flag), Vec::<String>::new(), "no version, no judgement");
    }

    #[test]
    fn gates_are_judged_by_their_values_and_wherever_they_stand() {
        for command in
            ["--feature-gates=AnyVolumeDataSource=true", "--feature-gates A=true,kube:AnyVolumeDataSource=true"]
        {
            let found = found("kube-apiserver", "r/kube-apiserver:v1.37.1", command);
            assert_eq!(
                found,
                [
                    "Error RemovedFeatureGates: kube-apiserver does not start with the feature gate AnyVolumeDataSource, which \
                 Kubernetes 1.37 has removed: take it out (of the configuration's extraArgs, or of the patches)"
                ]
            );
        }
        let found =
            |value| found("kube-scheduler", "r/x:v1.36.2", &format!("-feature-gates=AnyVolumeDataSource={value}"));
        assert!(
            found("false")[0].contains("at false, which Kubernetes 1.33 has locked at true"),
            "{:?}",
            found("false")
        );
        assert!(found("true")[0].starts_with("Warning DeprecatedFlags"), "{:?}", found("true"));
        assert_eq!(found("maybe"), Vec::<String>::new());
    }

    #[test]
    fn the_kubelets_gates_are_judged_wherever_they_stand_and_each_once() {
        let config = b"kind: KubeletConfiguration\nfeatureGates:\n  AnyVolumeDataSource: true\n  PodsAPI: true\n";
        let args = [Arg { name: "feature-gates".into(), value: "AnyVolumeDataSource=true,AppArmor=true".into() }];
        let found = |minor| {
            let all = of_kubelet(config, &args, minor);
            all.iter().map(|one| format!("{:?} {one}", one.severity)).collect::<Vec<_>>()
        };
        let removed = "Error RemovedFeatureGates: kubelet does not start with the feature gate AnyVolumeDataSource, which Kubernetes 1.37 \
                       has removed: take it out (of the KubeletConfiguration's featureGates, or of kubeletExtraArgs)";
        assert_eq!(found(37)[0], removed);
        assert!(found(37).len() == 2 && found(37)[1].contains("AppArmor"), "{:?}", found(37));
        assert!(found(36)[0].starts_with("Warning DeprecatedFlags: kubelet warns of"), "{:?}", found(36));
        assert_eq!(of_kubelet(b"", &[], 37), []);
        assert_eq!(of_kubelet(b"- no\n- object\n", &[], 37), []);
    }

    #[test]
    fn an_image_without_a_version_is_of_the_version_that_was_asked_for() {
        let gate = "--feature-gates=AnyVolumeDataSource=true";
        assert_eq!(found("kube-apiserver", "r/x:mine", gate).len(), 1);
        assert_eq!(
            found("kube-apiserver", "r/x:v1.32.0", gate),
            Vec::<String>::new(),
            "the image's own version counts"
        );
    }

    #[test]
    fn words_of_a_command_line_are_read_as_go_reads_them() {
        let command: Vec<String> = "etcd --a=b=c --d e -f --g - --".split(' ').map(str::to_owned).collect();
        assert_eq!(flags(&command), [("a", "b=c"), ("d", "e"), ("f", ""), ("g", ""),]);
    }
}
