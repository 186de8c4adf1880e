//! The hosts file of a pod.

use crate::agent::pod::StaticPod;

/// How a managed file begins, as the kubelet's does: tools and people look for it.
const HEADER: &str = "# Kubernetes-managed hosts file";
/// The names every machine has.
const LOCAL: &[(&str, &str)] = &[
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("fe00::0", "ip6-mcastprefix"),
    ("fe00::1", "ip6-allnodes"),
    ("fe00::2", "ip6-allrouters"),
];

/// Where a pod's host name comes from.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The pod's address; None when it has none, or not yet.
    pub ip: Option<&'a str>,
    /// The cluster's domain, for pods with a subdomain.
    pub cluster_domain: Option<&'a str>,
    /// The machine's own hosts file, for pods in its network.
    pub machine: &'a str,
}

/// The content of a pod's hosts file; None for a pod in its own network that has no address.
pub fn content(pod: &StaticPod, names: &Names<'_>) -> Option<String> {
    let mut text = if pod.host_network() {
        let mut text = format!("{HEADER} (host network).\n{}", names.machine);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    } else {
        let ip = names.ip.filter(|ip| !ip.is_empty())?;
        let mut text = format!("{HEADER}.\n");
        for (address, names) in LOCAL {
            text.push_str(&format!("{address}\t{names}\n"));
        }
        let host = pod.hostname();
        let full = pod.domain(names.cluster_domain).map(|domain| format!("{host}.{domain}\t"));
        text.push_str(&format!("{ip}\t{}{host}\n", full.unwrap_or_default()));
        text
    };
    let aliases: Vec<_> = pod.spec.host_aliases.iter().flatten().collect();
    if !aliases.is_empty() {
        text.push_str("\n# hostAliases of the pod\n");
    }
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    const ALIASES: &str = "hostAliases: [{ip: 10.1.2.3, hostnames: [foo, foo.local]}, {ip: '::5', hostnames: [bar]}]";

    fn of(spec: &str, ip: Option<&str>) -> Option<String> {
        let names = Names { ip, cluster_domain: Some("cluster.local"), machine: "127.0.0.1 localhost\n10.0.0.1 me" };
        content(&pod_with(spec, ""), &names)
    }

    #[test]
    fn a_pod_in_the_machines_network_has_the_machines_names_and_its_own_aliases() {
        let text = of(&format!("hostNetwork: true\n  {ALIASES}"), None).unwrap();
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n10.0.0.1 me\n\
             \n# hostAliases of the pod\n10.1.2.3\tfoo\tfoo.local\n::5\tbar\n"
        );
    }

    #[test]
    fn a_pod_in_its_own_network_finds_itself_once_it_has_an_address() {
        assert_eq!(of("", None), None);
        let text = of("", Some("10.2.0.9")).unwrap();
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\t"), "{text}");
        assert!(text.ends_with("\n10.2.0.9\tp-node1\n"), "{text}");
        let text = of("hostname: web\n  subdomain: sub", Some("10.2.0.9")).unwrap();
        assert!(text.ends_with("\n10.2.0.9\tweb.sub.default.svc.cluster.local\tweb\n"), "{text}");
        let names = Names { ip: Some("10.2.0.9"), cluster_domain: None, machine: "" };
        let text = content(&pod_with("hostname: web\n  subdomain: sub", ""), &names).unwrap();
        assert!(text.ends_with("\n10.2.0.9\tweb.sub.default.svc.\tweb\n"), "no domain of a cluster is known: {text}");
    }
}
