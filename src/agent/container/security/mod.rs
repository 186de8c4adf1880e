//! Security context of a container: its own settings over the pod's.

use std::path::Path;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, SELinuxOptions, SeccompProfile};

use crate::agent::pod::APPARMOR_ANNOTATION;
use crate::agent::pod::StaticPod;
use crate::runtime::{AppArmor, Seccomp, SecurityConfig};

/// Where the kernel says whether it has AppArmor.
const APPARMOR_ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// What a container's settings are applied to.
#[derive(Debug, Clone, Copy)]
pub struct SecurityDefaults<'a> {
    /// The image's user.
    pub image_user: &'a str,
    /// The directory of seccomp profiles of type Localhost.
    pub profiles: &'a Path,
    /// Whether a container without a seccomp profile gets the runtime's.
    pub seccomp_default: bool,
    /// Whether the machine has AppArmor.
    pub apparmor: bool,
}

/// Whether the machine has AppArmor.
pub fn has_apparmor() -> bool {
    std::fs::read_to_string(APPARMOR_ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// What the runtime is to apply.
///
/// The error is the kubelet's message of `CreateContainerConfigError`.
pub fn config(
    pod: &StaticPod,
    container: &Container,
    defaults: &SecurityDefaults<'_>,
) -> Result<SecurityConfig, String> {
    let of_pod = pod.spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let mut user = own.run_as_user.or(of_pod.run_as_user);
    let group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        check_non_root(user, defaults.image_user)?;
    }
    if of_pod.supplemental_groups_policy.as_deref() == Some("Strict") {
        return Err("supplementalGroupsPolicy Strict: this runtime always adds the image's groups".to_owned());
    }
    let mut user_name = None;
    if group.is_some() && user.is_none() {
        (user, user_name) = image_user(defaults.image_user);
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let groups = of_pod.supplemental_groups.into_iter().flatten().chain(of_pod.fs_group).collect();
    let seccomp = own.seccomp_profile.or(of_pod.seccomp_profile);
    let profile = own.app_armor_profile.or_else(|| annotated(pod, &container.name)).or(of_pod.app_armor_profile);
    Ok(SecurityConfig {
        user,
        user_name,
        group,
        supplemental_groups: groups,
        privileged: own.privileged.unwrap_or(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        seccomp: self::seccomp(seccomp, defaults.profiles, defaults.seccomp_default),
        apparmor: apparmor(profile, defaults.apparmor)?,
        selinux: selinux(own.se_linux_options.or(of_pod.se_linux_options)),
    })
}

/// A group goes with a user: the image's.
fn image_user(user: &str) -> (Option<i64>, Option<String>) {
    match user.split(':').next().unwrap_or_default() {
        "" => (Some(0), None),
        name => match name.parse() {
            Ok(uid) => (Some(uid), None),
            Err(_) => (None, Some(name.to_owned())),
        },
    }
}

/// The profile by the old annotation.
fn annotated(pod: &StaticPod, container: &str) -> Option<AppArmorProfile> {
    let value = pod.metadata.annotations.as_ref()?.get(&format!("{APPARMOR_ANNOTATION}{container}"))?;
    let profile = |type_: &str, name: Option<&str>| AppArmorProfile {
        type_: type_.to_owned(),
        localhost_profile: name.map(str::to_owned),
    };
    match value.as_str() {
        "runtime/default" => Some(profile("RuntimeDefault", None)),
        "unconfined" => Some(profile("Unconfined", None)),
        other => other.strip_prefix("localhost/").map(|name| profile("Localhost", Some(name))),
    }
}

/// A container that asks for a profile must get it, which none can on a machine without AppArmor.
fn apparmor(profile: Option<AppArmorProfile>, enabled: bool) -> Result<AppArmor, String> {
    let Some(profile) = profile else { return Ok(AppArmor::RuntimeDefault) };
    match profile.type_.as_str() {
        "Unconfined" => Ok(AppArmor::Unconfined),
        _ if !enabled => Err("cannot enforce AppArmor: AppArmor is not enabled on this machine".to_owned()),
        "Localhost" => Ok(AppArmor::Localhost(profile.localhost_profile.unwrap_or_default())),
        _ => Ok(AppArmor::RuntimeDefault),
    }
}

/// `user:`, `role:`, `type:` and `level:`, those that are set.
pub fn selinux(options: Option<SELinuxOptions>) -> Vec<String> {
    let options = options.unwrap_or_default();
    let parts = [("user", options.user), ("role", options.role), ("type", options.type_), ("level", options.level)];
    let set = parts.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    set.map(|(name, value)| format!("{name}:{value}")).collect()
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

    fn defaults(image_user: &str) -> SecurityDefaults<'_> {
        SecurityDefaults { image_user, profiles: Path::new("/seccomp"), seccomp_default: false, apparmor: true }
    }

    fn of(spec: &str, container: &str, image_user: &str) -> Result<SecurityConfig, String> {
        let pod = pod_with(spec, container);
        config(&pod, &pod.spec.containers[0], &defaults(image_user))
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

    #[test]
    fn a_group_alone_goes_with_the_images_user() {
        for (image_user, user, name) in
            [("", Some(0), None), ("7:8", Some(7), None), ("nobody:nogroup", None, Some("nobody"))]
        {
            let config = of("", "securityContext: {runAsGroup: 5}", image_user).unwrap();
            assert_eq!((config.user, config.user_name.as_deref(), config.group), (user, name, Some(5)));
        }
    }

    #[test]
    fn seccomp_default_holds_for_containers_that_ask_for_nothing() {
        for (context, expected) in [
            ("", Seccomp::RuntimeDefault),
            ("securityContext: {seccompProfile: {type: Unconfined}}", Seccomp::Unconfined),
        ] {
            let pod = pod_with("", context);
            let defaults = SecurityDefaults { seccomp_default: true, ..defaults("") };
            assert_eq!(config(&pod, &pod.spec.containers[0], &defaults).unwrap().seccomp, expected);
        }
    }

    #[test]
    fn an_apparmor_profile_comes_from_the_field_or_the_annotation_and_needs_apparmor() {
        let of = |annotation: &str, pod_context: &str, context: &str, apparmor: bool| {
            let mut pod = pod_with(pod_context, context);
            if !annotation.is_empty() {
                let key = format!("{APPARMOR_ANNOTATION}c");
                pod.metadata.annotations.get_or_insert_default().insert(key, annotation.to_owned());
            }
            config(&pod, &pod.spec.containers[0], &SecurityDefaults { apparmor, ..defaults("") })
                .map(|config| config.apparmor)
        };
        let (on_pod, mine) =
            ("securityContext: {appArmorProfile: {type: Unconfined}}", AppArmor::Localhost("mine".into()));
        let own = "securityContext: {appArmorProfile: {type: Localhost, localhostProfile: mine}}";
        assert_eq!(of("", "", "", true), Ok(AppArmor::RuntimeDefault));
        assert_eq!(of("", on_pod, "", false), Ok(AppArmor::Unconfined));
        assert_eq!(of("", on_pod, own, true), Ok(mine.clone()));
        assert_eq!(of("localhost/mine", on_pod, "", true), Ok(mine));
        assert_eq!(of("unconfined", "", "", false), Ok(AppArmor::Unconfined));
        for annotation in ["runtime/default", "localhost/mine"] {
            assert!(of(annotation, "", "", false).unwrap_err().contains("AppArmor is not enabled"));
        }
    }

    #[test]
    fn the_rest_of_the_context_is_carried_over() {
        let config = of(
            "hostUsers: false\n  securityContext: {seLinuxOptions: {type: spc_t, level: 's0:c1'}}",
            "securityContext: {procMount: Unmasked}",
            "",
        )
        .unwrap();
        assert_eq!((config.selinux, config.unmasked_proc), (vec!["type:spc_t".into(), "level:s0:c1".into()], true));
        let strict = of("securityContext: {supplementalGroupsPolicy: Strict}", "", "").unwrap_err();
        assert!(strict.contains("Strict"), "{strict}");
    }
}
