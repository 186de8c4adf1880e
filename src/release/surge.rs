//! Flags with which a component lets its successor start beside it, on the same port.

/// A flag, and what takes it.
struct Row {
    component: &'static str,
    name: &'static str,
    value: &'static str,
    /// The first minor version that is given it.
    since: u64,
}

/// By the binaries of 1.20.2 and 1.36.2. Not `shutdown-send-retry-after`: with it the old API server would listen, and refuse,
/// until the last request has ended.
///
/// No row for the controller manager and the scheduler, although both can share their port: one that stands by looks after the
/// lease each `--leader-elect-retry-period` (2 s) and leads 1.5 s after the old one's end (1.36.2, median of seven), one that is
/// started once the agent has given the lease free takes it with its first look, 0.3 s after.
const ROWS: &[Row] = &[
    Row { component: "kube-apiserver", name: "permit-port-sharing", value: "true", since: 20 },
    // What has connected to the old one just before the new one got the connections is served.
    Row { component: "kube-apiserver", name: "shutdown-delay-duration", value: "3s", since: 20 },
    // Watches end one after the other, and their clients do not all come back at once.
    Row { component: "kube-apiserver", name: "shutdown-watch-termination-grace-period", value: "10s", since: 34 },
];

/// The flags of a component of a minor version.
pub fn surge_flags(component: &str, minor: u64) -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = ROWS.iter().filter(move |row| row.since <= minor && row.component == component);
    rows.map(|row| (row.name, row.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_server_has_a_successor_beside_it() {
        let names = |component, minor| surge_flags(component, minor).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("kube-apiserver", 20), ["permit-port-sharing", "shutdown-delay-duration"]);
        assert_eq!(names("kube-apiserver", 33), ["permit-port-sharing", "shutdown-delay-duration"]);
        assert_eq!(names("kube-apiserver", 34).len(), 3);
        assert!(names("kube-scheduler", 36).is_empty() && names("etcd", 36).is_empty());
    }
}
