//! Which kernel parameters a pod may set (`pkg/kubelet/sysctl`): those that are its own and can hurt no other pod, and those
//! that the node's owner allows besides.

use super::Refusal;
use crate::agent::pod::StaticPod;
use crate::agent::pod::sysctls;

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

/// The refusal of a pod that sets one that is neither safe nor among `allowed`, which are checked patterns, or one that would
/// be the machine's.
pub(super) fn refusal(pod: &StaticPod, allowed: &[String]) -> Option<Refusal> {
    let names = sysctls::sysctls(pod).into_keys();
    let problem = names.filter_map(|name| problem(pod, &name, allowed)).next()?;
    Some(Refusal::new("SysctlForbidden", format!("forbidden sysctl: {problem}")))
}

fn problem(pod: &StaticPod, name: &str, allowed: &[String]) -> Option<String> {
    let patterns = allowed.iter().map(String::as_str);
    let Some(pattern) = SAFE.iter().copied().chain(patterns).find(|pattern| sysctls::covers(pattern, name)) else {
        return Some(format!("{name:?} not allowlisted"));
    };
    let hosts = match sysctls::namespace(pattern)? {
        sysctls::Namespace::Ipc => pod.spec.host_ipc.unwrap_or(false).then_some("IPC"),
        sysctls::Namespace::Net => pod.host_network().then_some("Net"),
    };
    hosts.map(|namespace| format!("{name:?} not allowed with host {namespace} enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    fn of(spec: &str, name: &str, allowed: &[&str]) -> String {
        let context = format!("{spec}securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}");
        let allowed: Vec<String> = allowed.iter().map(|one| (*one).to_owned()).collect();
        refusal(&pod_with(&context, ""), &allowed)
            .map(|one| format!("{}: {}", one.reason, one.message))
            .unwrap_or_default()
    }

    #[test]
    fn safe_and_allowed_ones_are_set_and_never_the_machines() {
        let (host_net, host_ipc) = ("hostNetwork: true\n  ", "hostIPC: true\n  ");
        for (spec, name, allowed, expected) in [
            ("", "net.ipv4.tcp_syncookies", &[][..], ""),
            ("", "net/ipv4/tcp_syncookies", &[], ""),
            ("", "kernel.shm_rmid_forced", &[], ""),
            ("", "net.ipv4.tcp_slow_start_after_idle", &[], ""),
            ("", "net.ipv4.tcp_notsent_lowat", &[], ""),
            (host_net, "kernel.shm_rmid_forced", &[], ""),
            (
                host_net,
                "net.ipv4.tcp_notsent_lowat",
                &[],
                "\"net.ipv4.tcp_notsent_lowat\" not allowed with host Net enabled",
            ),
            (host_ipc, "kernel.shm_rmid_forced", &[], "\"kernel.shm_rmid_forced\" not allowed with host IPC enabled"),
            ("", "kernel.msgmax", &[], "\"kernel.msgmax\" not allowlisted"),
            ("", "kernel.msgmax", &["kernel.msg*"], ""),
            ("", "kernel.msgmax", &["kernel.msgmax", "net.*"], ""),
            ("", "kernel.msgmnb", &["kernel.msgmax"], "\"kernel.msgmnb\" not allowlisted"),
            (host_ipc, "kernel.msgmax", &["kernel.msg*"], "\"kernel.msgmax\" not allowed with host IPC enabled"),
            ("", "net.core.somaxconn", &["net.core.*"], ""),
            ("", "net/ipv4/conf/eth0.100/forwarding", &["net.ipv4.conf.*"], ""),
            (
                host_net,
                "net.core.somaxconn",
                &["net.core.*"],
                "\"net.core.somaxconn\" not allowed with host Net enabled",
            ),
            ("", "vm.swappiness", &["net.*"], "\"vm.swappiness\" not allowlisted"),
        ] {
            let expected = if expected.is_empty() {
                String::new()
            } else {
                format!("SysctlForbidden: forbidden sysctl: {expected}")
            };
            assert_eq!(of(spec, name, allowed), expected, "{spec:?} {name} {allowed:?}");
        }
    }
}
