//! Names of kernel parameters, as the kubelet reads them (`component-helpers/node/util/sysctl`).

use std::collections::BTreeMap;

use crate::agent::pod::StaticPod;

/// The longest pattern.
const LONGEST: usize = 253;
/// Parameters of an IPC namespace by name, two of them only beginnings of names.
const IPC: &[&str] = &[
    "kernel.msg",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// The kind of namespace that a parameter is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Message queues, semaphores, shared memory.
    Ipc,
    /// The network.
    Net,
}

/// The namespace of the parameters that a pattern covers; None where they are the machine's, or may be.
pub fn namespace(pattern: &str) -> Option<Namespace> {
    let name = pattern.split('*').next().unwrap_or_default();
    match name {
        _ if IPC.contains(&name) || name.starts_with("fs.mqueue.") => Some(Namespace::Ipc),
        _ if name.starts_with("net.") => Some(Namespace::Net),
        _ => None,
    }
}

/// Whether a pattern, which is a name or the beginning of some with `*` behind it, covers the parameter `name`.
pub fn covers(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

/// A pattern of `allowedUnsafeSysctls` in its normal form.
///
/// # Errors
/// What is wrong with it: it is no name, or covers what is the whole machine's.
pub fn pattern(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let word = |part: &str| {
        part.starts_with(plain) && part.ends_with(plain) && part.chars().all(|c| plain(c) || c == '-' || c == '_')
    };
    let (parents, last) = text.rsplit_once(['.', '/']).map_or((None, text), |(parents, last)| (Some(parents), last));
    // Before the star a name may end as no name does.
    let well_ended = match last.strip_suffix('*') {
        Some("") => true,
        Some(cut) => cut.starts_with(plain) && cut.chars().all(|c| plain(c) || c == '-' || c == '_'),
        None => word(last),
    };
    let well_begun = parents.is_none_or(|parents| parents.split(['.', '/']).all(word));
    if text.len() > LONGEST || !well_begun || !well_ended {
        return Err("a kernel parameter is written as net.core.somaxconn, several as net.core.*".to_owned());
    }
    let name = normal(text);
    match namespace(&name) {
        Some(_) => Ok(name),
        None => Err(
            "a pod has none of its own: only kernel.sem, kernel.shm*, kernel.msg*, fs.mqueue.* and net.* are not the \
                     whole machine's"
                .to_owned(),
        ),
    }
}

/// With dots between the parts. Where the first separator is a slash, slashes and dots have changed places: an interface may
/// have a dot in its name.
fn normal(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|at| name.as_bytes().get(at) == Some(&b'.')) {
        return name.to_owned();
    }
    let swapped = name.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    });
    swapped.collect()
}

/// A pod's sysctls by their normal names. Whether it may set them is a question of its admission.
pub fn sysctls(pod: &StaticPod) -> BTreeMap<String, String> {
    let all = pod.spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    all.map(|sysctl| (normal(&sysctl.name), sysctl.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    #[test]
    fn names_have_dots_and_interfaces_may_too() {
        for (given, expected) in [
            ("net.ipv4.tcp_syncookies", "net.ipv4.tcp_syncookies"),
            ("net/ipv4/tcp_syncookies", "net.ipv4.tcp_syncookies"),
            ("net/ipv4/conf/eth0.100/forwarding", "net.ipv4.conf.eth0/100.forwarding"),
            ("net.ipv4.conf.eth0/100.forwarding", "net.ipv4.conf.eth0/100.forwarding"),
        ] {
            let spec = format!("securityContext: {{sysctls: [{{name: {given}, value: '1'}}]}}");
            let all = sysctls(&pod_with(&spec, ""));
            assert_eq!(all, [(expected.to_owned(), "1".to_owned())].into(), "{given}");
        }
    }

    #[test]
    fn patterns_cover_what_a_pod_can_have_of_its_own() {
        for (given, expected) in [
            ("kernel.msg*", Some(Namespace::Ipc)),
            ("kernel.sem", Some(Namespace::Ipc)),
            ("fs.mqueue.*", Some(Namespace::Ipc)),
            ("net.*", Some(Namespace::Net)),
            ("net/core/*", Some(Namespace::Net)),
            ("net.ipv4.ip_*", Some(Namespace::Net)),
            ("kernel.*", None),
            ("kernel.msgmax*", Some(Namespace::Ipc)),
            ("vm.swappiness", None),
            ("*", None),
            ("net.*.x", None),
            ("net..x", None),
            ("Net.core", None),
            ("", None),
        ] {
            let found = pattern(given);
            assert_eq!(found.as_ref().ok().and_then(|name| namespace(name)), expected, "{given}: {found:?}");
        }
        assert_eq!(pattern("net/core/*").unwrap(), "net.core.*");
        assert!(covers("net.core.*", "net.core.somaxconn") && !covers("net.core.*", "net.ipv4.x"));
        assert!(covers("kernel.sem", "kernel.sem") && !covers("kernel.sem", "kernel.sem2"));
    }
}
