//! Security context of a container: its own settings over the pod's.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, SeccompProfile};

use super::pod::StaticPod;
use crate::runtime::{Seccomp, SecurityConfig};

/// What the runtime is to apply. `image_user` is the image's user, `profiles` the directory of Localhost profiles.
///
/// The error is the kubelet's message of `CreateContainerConfigError`.
pub fn config(
    pod: &StaticPod,
    container: &Container,
    image_user: &str,
    profiles: &Path,
    seccomp_default: bool,
) -> Result<SecurityConfig, String> {
    let of_pod = pod.spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user);
    let group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        check_non_root(user, image_user)?;
    }
    if group.is_some() && user.is_none() {
        return Err("runAsGroup is set without runAsUser".to_owned());
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let groups = of_pod.supplemental_groups.into_iter().flatten().chain(of_pod.fs_group).collect();
    let seccomp = own.seccomp_profile.or(of_pod.seccomp_profile);
    Ok(SecurityConfig {
        user,
        group,
        supplemental_groups: groups,
        privileged: own.privileged.unwrap_or(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp: self::seccomp(seccomp, profiles, seccomp_default),
    })
}

/// `runAsNonRoot` (`verifyRunAsNonRoot`).
fn check_non_root(user: Option<i64>, image_user: &str) -> Result<(), String> {
    match user {
        Some(0) => return Err("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => return Ok(()),
        None => {}
    }
    let name = image_user.split(':').next().unwrap_or_default();
    match name.parse::<i64>() {
        Ok(uid) if uid != 0 => Ok(()),
        Err(_) if !name.is_empty() && name != "root" => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
        _ => Err("container has runAsNonRoot and image will run as root".to_owned()),
    }
}

fn seccomp(profile: Option<SeccompProfile>, profiles: &Path, default: bool) -> Seccomp {
    match profile {
        Some(profile) if profile.type_ == "RuntimeDefault" => Seccomp::RuntimeDefault,
        Some(profile) if profile.type_ == "Localhost" => {
            let file = profile.localhost_profile.unwrap_or_default();
            Seccomp::Localhost(profiles.join(file).display().to_string())
        }
        Some(_) => Seccomp::Unconfined,
        None if default => Seccomp::RuntimeDefault,
        None => Seccomp::Unconfined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    fn of(spec: &str, container: &str, image_user: &str) -> Result<SecurityConfig, String> {
        let pod = pod_with(spec, container);
        config(&pod, &pod.spec.containers[0], image_user, Path::new("/seccomp"), false)
    }

    #[test]
    fn a_root_user_is_refused_where_the_manifest_asks_for_another() {
        for (context, image_user, expected) in [
            ("runAsNonRoot: true", "", Err("container has runAsNonRoot and image will run as root")),
            ("runAsNonRoot: true", "0:0", Err("container has runAsNonRoot and image will run as root")),
            ("runAsNonRoot: true", "root", Err("container has runAsNonRoot and image will run as root")),
            ("runAsNonRoot: true, runAsUser: 0", "1", Err("container's runAsUser breaks non-root policy")),
            ("runAsNonRoot: true", "1000", Ok(None)),
            ("runAsNonRoot: true, runAsUser: 7", "", Ok(Some(7))),
            ("runAsUser: 0", "", Ok(Some(0))),
        ] {
            let got = of("", &format!("securityContext: {{{context}}}"), image_user).map(|config| config.user);
            assert_eq!(got, expected.map_err(str::to_owned), "{context} {image_user}");
        }
        assert!(
            of("", "securityContext: {runAsNonRoot: true}", "nobody")
                .unwrap_err()
                .contains("non-numeric user (nobody)")
        );
    }

    #[test]
    fn the_containers_settings_win_over_the_pods() {
        let config = of(
            "securityContext: {runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: [4], seccompProfile: {type: RuntimeDefault}}",
            "securityContext: {runAsUser: 5, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}",
            "",
        )
        .unwrap();
        assert_eq!((config.user, config.group), (Some(5), Some(2)));
        assert_eq!(config.supplemental_groups, [4, 3]);
        assert_eq!(config.seccomp, Seccomp::RuntimeDefault);
        assert!(config.no_new_privileges);
        assert_eq!(config.drop_capabilities, ["ALL"]);
        let local =
            of("", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: a.json}}", "").unwrap();
        assert_eq!(local.seccomp, Seccomp::Localhost("/seccomp/a.json".into()));
        assert_eq!(of("", "", "").unwrap().seccomp, Seccomp::Unconfined);
    }
}
