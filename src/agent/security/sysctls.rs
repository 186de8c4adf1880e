//! Kernel parameters of a pod: those that are its own and can hurt no other, as the kubelet allows them.

use std::collections::BTreeMap;

use crate::agent::pod::StaticPod;

/// The kubelet's safe ones, as of 1.37.
const SAFE: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// A pod's sysctls, or why they may not be set (the kubelet's reason `SysctlForbidden`).
pub fn sysctls(pod: &StaticPod) -> Result<BTreeMap<String, String>, String> {
    let all = pod.spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    all.map(|sysctl| {
        // Slashes are another way to write them.
        let name = if sysctl.name.contains('/') { sysctl.name.replace('/', ".") } else { sysctl.name.clone() };
        check(pod, &name)?;
        Ok((name, sysctl.value.clone()))
    })
    .collect()
}

fn check(pod: &StaticPod, name: &str) -> Result<(), String> {
    if !SAFE.contains(&name) {
        return Err(format!("forbidden sysctl: {name:?} is not on the list of those that are safe for other pods"));
    }
    if name.starts_with("net.") && pod.host_network() {
        return Err(format!("forbidden sysctl: {name:?} would be set for the machine, as hostNetwork is"));
    }
    if name.starts_with("kernel.") && pod.spec.host_ipc.unwrap_or(false) {
        return Err(format!("forbidden sysctl: {name:?} would be set for the machine, as hostIPC is"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    fn of(spec: &str, name: &str) -> Result<usize, String> {
        let context = format!("{spec}securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}");
        sysctls(&pod_with(&context, "")).map(|map| map.len())
    }

    #[test]
    fn only_safe_ones_are_set_and_never_the_machines() {
        for (spec, name, allowed) in [
            ("", "net.ipv4.tcp_syncookies", true),
            ("", "net/ipv4/tcp_syncookies", true),
            ("", "kernel.shm_rmid_forced", true),
            ("", "net.ipv4.tcp_slow_start_after_idle", true),
            ("", "net.ipv4.tcp_notsent_lowat", true),
            ("hostNetwork: true\n  ", "net.ipv4.tcp_notsent_lowat", false),
            ("", "kernel.msgmax", false),
            ("", "vm.swappiness", false),
            ("hostNetwork: true\n  ", "net.ipv4.tcp_syncookies", false),
            ("hostNetwork: true\n  ", "kernel.shm_rmid_forced", true),
            ("hostIPC: true\n  ", "kernel.shm_rmid_forced", false),
        ] {
            let result = of(spec, name);
            assert_eq!(result.is_ok(), allowed, "{spec:?} {name}: {result:?}");
        }
    }
}
