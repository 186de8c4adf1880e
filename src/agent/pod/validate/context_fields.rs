//! What Kubernetes refuses in names, resolvers and security settings.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, FileKeySelector, PodSpec, SeccompProfile};

use super::{Problems, climbs, is_dns_subdomain};

/// The most name servers and search domains of a pod.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const ONLY_LOCALHOST: &str = "can only be set with type Localhost";
const PROFILES: &[&str] = &["RuntimeDefault", "Unconfined", "Localhost"];

/// `hostAliases`, `dnsConfig` and the pod's security context.
pub(super) fn pod(spec: &PodSpec, problems: &mut Problems) {
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let field = format!("spec.hostAliases[{index}]");
        problems.refuse(alias.ip.parse::<IpAddr>().is_err(), &format!("{field}.ip"), "is not an IP address");
        for name in alias.hostnames.iter().flatten().filter(|name| !is_dns_subdomain(name)) {
            problems.add(&format!("{field}.hostnames"), format!("{name:?} is not a lower-case DNS name"));
        }
    }
    let config = spec.dns_config.clone().unwrap_or_default();
    let servers = config.nameservers.unwrap_or_default();
    let none = spec.dns_policy.as_deref() == Some("None") && servers.is_empty();
    problems.refuse(none, "spec.dnsConfig.nameservers", "is required with dnsPolicy None");
    problems.refuse(servers.len() > MAX_SERVERS, "spec.dnsConfig.nameservers", "may have 3 at most");
    for server in servers.iter().filter(|server| server.parse::<IpAddr>().is_err()) {
        problems.add("spec.dnsConfig.nameservers", format!("{server:?} is not an IP address"));
    }
    let searches = config.searches.unwrap_or_default().len();
    problems.refuse(searches > MAX_SEARCHES, "spec.dnsConfig.searches", "may have 32 at most");
    let Some(context) = &spec.security_context else { return };
    let field = "spec.securityContext";
    seccomp(field, context.seccomp_profile.as_ref(), problems);
    apparmor(field, context.app_armor_profile.as_ref(), problems);
    ids(field, &[context.run_as_user, context.run_as_group, context.fs_group], problems);
    let groups: Vec<_> = context.supplemental_groups.iter().flatten().map(|id| Some(*id)).collect();
    ids(field, &groups, problems);
}

/// A container's security context, with the machine's users or the pod's own.
pub(super) fn container(field: &str, container: &Container, host_users: bool, problems: &mut Problems) {
    let Some(context) = &container.security_context else { return };
    let field = format!("{field}.securityContext");
    seccomp(&field, context.seccomp_profile.as_ref(), problems);
    apparmor(&field, context.app_armor_profile.as_ref(), problems);
    ids(&field, &[context.run_as_user, context.run_as_group], problems);
    let unmasked = context.proc_mount.as_deref() == Some("Unmasked") && host_users;
    problems.refuse(unmasked, &format!("{field}.procMount"), "`hostUsers` must be false to use `Unmasked`");
    problems.one_of(&format!("{field}.procMount"), context.proc_mount.as_deref(), &["Default", "Unmasked"]);
    let added = context.capabilities.iter().flat_map(|all| all.add.iter().flatten());
    // SYS_ADMIN without the prefix is the same to a runtime, and runs with no_new_privs: only this spelling is refused.
    let escalates = context.privileged.unwrap_or(false) || added.into_iter().any(|name| name == "CAP_SYS_ADMIN");
    let contradicts = context.allow_privilege_escalation == Some(false) && escalates;
    let escalation = format!("{field}.allowPrivilegeEscalation");
    problems.refuse(contradicts, &escalation, "cannot be false with privileged or CAP_SYS_ADMIN");
}

fn seccomp(field: &str, profile: Option<&SeccompProfile>, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    problems.one_of(&format!("{field}.seccompProfile.type"), Some(&profile.type_), PROFILES);
    let path = profile.localhost_profile.as_deref().unwrap_or_default();
    let leaves = profile.type_ == "Localhost" && (path.is_empty() || path.starts_with('/') || climbs(path));
    let field = format!("{field}.seccompProfile.localhostProfile");
    problems.refuse(profile.type_ != "Localhost" && profile.localhost_profile.is_some(), &field, ONLY_LOCALHOST);
    problems.refuse(leaves, &field, "must be a path below the seccomp directory, without '..'");
}

fn apparmor(field: &str, profile: Option<&AppArmorProfile>, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    problems.one_of(&format!("{field}.appArmorProfile.type"), Some(&profile.type_), PROFILES);
    let unnamed = profile.localhost_profile.as_deref().unwrap_or_default().trim().is_empty();
    let field = format!("{field}.appArmorProfile.localhostProfile");
    problems.refuse(profile.type_ != "Localhost" && profile.localhost_profile.is_some(), &field, ONLY_LOCALHOST);
    problems.refuse(profile.type_ == "Localhost" && unnamed, &field, "is required with type Localhost");
}

/// Users and groups.
fn ids(field: &str, ids: &[Option<i64>], problems: &mut Problems) {
    let wrong = ids.iter().flatten().any(|id| !(0..=i64::from(i32::MAX)).contains(id));
    problems.refuse(wrong, field, "users and groups must be 0 to 2147483647");
}

/// A variable's key in a file.
pub(super) fn file_key(field: &str, of: &FileKeySelector, volumes: &BTreeSet<String>, problems: &mut Problems) {
    let field = format!("{field}.fileKeyRef");
    problems.refuse(!volumes.contains(&of.volume_name), &field, "there is no volume of this name");
    let leaves = of.path.is_empty() || of.path.starts_with('/') || climbs(&of.path);
    problems.refuse(leaves, &field, "path must be relative, without '..'");
    problems.refuse(of.key.is_empty(), &field, "key is required");
}

#[cfg(test)]
mod tests {
    use crate::agent::pod::tests::read;

    fn problems(spec: &str, container: &str) -> String {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  {spec}\n  containers:\n  - name: c\n    \
             image: bb:1\n    {container}\n"
        );
        read(&text).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn names_resolvers_and_security_settings_are_checked_as_the_api_server_checks_them() {
        let escalation = "securityContext: {allowPrivilegeEscalation: false, privileged: true}";
        for (spec, container, problem) in [
            ("hostAliases: [{ip: 10.0.0.1, hostnames: [a.b]}]", "", ""),
            ("hostAliases: [{ip: here, hostnames: [a]}]", "", "not an IP address"),
            ("hostAliases: [{ip: '::1', hostnames: [A_B]}]", "", "not a lower-case DNS name"),
            ("dnsPolicy: None", "", "is required with dnsPolicy None"),
            ("dnsConfig: {nameservers: [dns.org]}", "", "not an IP address"),
            ("dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}", "", "3 at most"),
            ("securityContext: {seccompProfile: {type: Other}}", "", "seccompProfile.type"),
            ("", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: ../x}}", "without '..'"),
            ("", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: x/y.json}}", ""),
            ("", "securityContext: {appArmorProfile: {type: Localhost}}", "is required with type Localhost"),
            ("securityContext: {supplementalGroups: [-1]}", "", "0 to 2147483647"),
            ("", escalation, "cannot be false"),
            ("", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: f, key: k}}}]", "no volume"),
        ] {
            let found = problems(spec, container);
            assert!(found.is_empty() == problem.is_empty() && found.contains(problem), "{spec} {container}: {found}");
        }
    }
}
