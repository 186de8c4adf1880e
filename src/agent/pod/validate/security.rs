//! Security contexts: what is not about users and profiles.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;

use super::Problems;

/// `spec.securityContext`.
pub(super) fn pod(spec: &PodSpec, problems: &mut Problems) {
    let Some(context) = &spec.security_context else { return };
    let field = "spec.securityContext";
    let policy = context.fs_group_change_policy.as_deref();
    problems.one_of(&format!("{field}.fsGroupChangePolicy"), policy, &["OnRootMismatch", "Always"]);
    let policy = context.supplemental_groups_policy.as_deref();
    problems.one_of(&format!("{field}.supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    let policy = context.se_linux_change_policy.as_deref();
    problems.one_of(&format!("{field}.seLinuxChangePolicy"), policy, &["Recursive", "MountOption"]);
    let mut names = BTreeSet::new();
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let field = format!("{field}.sysctls[{index}]");
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c))
        };
        let good = sysctl.name.len() <= 253 && sysctl.name.split(['.', '/']).all(word);
        problems.refuse(!good, &field, &format!("{:?} is no name of a sysctl", sysctl.name));
        problems.refuse(!names.insert(sysctl.name.replace('/', ".")), &field, "is set twice");
    }
}
