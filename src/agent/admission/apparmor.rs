//! Pods that ask for AppArmor on a node that has none (`pkg/security/apparmor`): they never run without.

use super::Refusal;
use crate::agent::pod::APPARMOR_ANNOTATION;
use crate::agent::pod::StaticPod;

/// The refusal of a pod that asks for a profile which the node cannot enforce.
pub(super) fn refusal(pod: &StaticPod, has_apparmor: bool) -> Option<Refusal> {
    let refused = |problem: &str| Some(Refusal::new("AppArmor", format!("Cannot enforce AppArmor: {problem}")));
    let own =
        pod.containers().filter_map(|(_, container)| container.security_context.as_ref()?.app_armor_profile.as_ref());
    let of_pod = pod.spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let profiles: Vec<_> = own.chain(of_pod).filter(|profile| profile.type_ != "Unconfined").collect();
    let annotated = pod.metadata.annotations.iter().flatten();
    let annotated =
        annotated.filter(|(key, value)| key.starts_with(APPARMOR_ANNOTATION) && *value != "unconfined").count();
    let nameless = |name: &Option<String>| name.as_deref().is_none_or(|name| name.trim().is_empty());
    match () {
        () if profiles.is_empty() && annotated == 0 => None,
        () if !has_apparmor => refused("AppArmor is not enabled on the host"),
        () if profiles.iter().any(|one| one.type_ == "Localhost" && nameless(&one.localhost_profile)) => {
            refused("invalid empty AppArmor profile name")
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::{pod_with, read};

    #[test]
    fn a_profile_needs_a_machine_that_enforces_it() {
        let absent = Some("Cannot enforce AppArmor: AppArmor is not enabled on the host");
        for (spec, container, expected) in [
            ("", "", None),
            ("", "securityContext: {appArmorProfile: {type: Unconfined}}", None),
            ("", "securityContext: {appArmorProfile: {type: RuntimeDefault}}", absent),
            ("securityContext: {appArmorProfile: {type: RuntimeDefault}}", "", absent),
            ("", "securityContext: {appArmorProfile: {type: Localhost, localhostProfile: x}}", absent),
        ] {
            let pod = pod_with(spec, container);
            let found = refusal(&pod, false);
            assert_eq!(found.as_ref().map(|one| one.message.as_str()), expected, "{spec} {container}");
            assert!(found.is_none_or(|one| one.reason == "AppArmor"));
            assert_eq!(refusal(&pod, true), None, "{spec} {container}");
        }
        for (value, refused) in [("unconfined", false), ("runtime/default", true), ("localhost/x", true)] {
            let pod = read(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, annotations: {{{APPARMOR_ANNOTATION}c: {value}}}}}\n\
                 spec: {{containers: [{{name: c, image: 'x:1'}}]}}\n"
            ));
            assert_eq!(refusal(&pod.unwrap(), false).is_some(), refused, "{value}");
        }
    }
}
