//! The resolver of a pod: `dnsPolicy`, `dnsConfig` and the machine's own, by the kubelet's rules
//! (`pkg/kubelet/network/dns`).

use crate::agent::options::AgentOptions;
use crate::agent::pod::StaticPod;

/// The most that a resolver looks at.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// So that a short name is tried with the searches first.
const CLUSTER_OPTION: &str = "ndots:5";

/// The content of a resolver file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// What is reported to the user: an event's reason and its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The kubelet's reason.
    pub reason: &'static str,
    /// More words.
    pub message: String,
}

impl Resolver {
    /// Reads a resolver file: of several `search` or `options` lines the last counts, as for the C library.
    pub fn parse(text: &str) -> Self {
        let mut result = Self::default();
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            let Some(key) = words.next() else { continue };
            let rest = words.map(str::to_owned);
            match key {
                "nameserver" => result.servers.extend(rest.take(1)),
                "search" => {
                    result.searches =
                        rest.map(|domain| if domain == "." { domain } else { undotted(&domain) }).collect();
                }
                "options" => result.options = rest.collect(),
                _ => {}
            }
        }
        result
    }
}

/// The file.
impl std::fmt::Display for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.servers.iter().try_for_each(|server| writeln!(f, "nameserver {server}"))?;
        for (key, words) in [("search", &self.searches), ("options", &self.options)] {
            if !words.is_empty() {
                writeln!(f, "{key} {}", words.join(" "))?;
            }
        }
        Ok(())
    }
}

fn undotted(domain: &str) -> String {
    domain.strip_suffix('.').unwrap_or(domain).to_owned()
}

/// Which resolver a policy means.
enum Kind {
    /// The cluster's.
    Cluster,
    /// The machine's.
    Host,
    /// None but what `dnsConfig` says.
    Empty,
}

fn kind(pod: &StaticPod) -> Kind {
    match pod.spec.dns_policy.as_deref() {
        Some("None") => Kind::Empty,
        Some("Default") => Kind::Host,
        Some("ClusterFirstWithHostNet") => Kind::Cluster,
        // In the host's network ClusterFirst has always meant Default.
        _ if pod.host_network() => Kind::Host,
        _ => Kind::Cluster,
    }
}

/// The resolver of a pod. `machine` is the text of the machine's resolver file.
pub fn resolver(pod: &StaticPod, machine: &str, options: &AgentOptions) -> (Resolver, Vec<Notice>) {
    let (mut notices, machine) = (Vec::new(), Resolver::parse(machine));
    let mut result = match kind(pod) {
        Kind::Empty => Resolver::default(),
        Kind::Host => machine,
        Kind::Cluster if options.cluster_dns.is_empty() => {
            let policy = pod.spec.dns_policy.as_deref().unwrap_or_default();
            let message = format!("no clusterDNS is configured: dnsPolicy {policy} is taken for Default");
            notices.push(Notice { reason: "MissingClusterDNS", message });
            machine
        }
        Kind::Cluster => {
            let domains = options.cluster_domain.iter().flat_map(|domain| {
                [format!("{}.svc.{domain}", pod.key.namespace), format!("svc.{domain}"), domain.clone()]
            });
            Resolver {
                servers: options.cluster_dns.clone(),
                searches: unique(domains.chain(machine.searches)),
                options: vec![CLUSTER_OPTION.to_owned()],
            }
        }
    };
    if let Some(own) = &pod.spec.dns_config {
        result.servers = unique(result.servers.into_iter().chain(own.nameservers.clone().unwrap_or_default()));
        result.searches = unique(result.searches.into_iter().chain(own.searches.clone().unwrap_or_default()));
        for option in own.options.iter().flatten() {
            set_option(&mut result.options, option.name.as_deref().unwrap_or_default(), option.value.as_deref());
        }
    }
    notices.extend(fit(&mut result));
    (result, notices)
}

fn unique(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    for word in words {
        if !result.contains(&word) {
            result.push(word);
        }
    }
    result
}

/// An option of the pod takes the place of one of the same name.
fn set_option(options: &mut Vec<String>, name: &str, value: Option<&str>) {
    let text = match value {
        Some(value) if !value.is_empty() => format!("{name}:{value}"),
        _ => name.to_owned(),
    };
    let same = |option: &&mut String| option.split(':').next() == Some(name);
    match options.iter_mut().find(same) {
        Some(old) => *old = text,
        None => options.push(text),
    }
}

/// Leaves out what a resolver would not look at, and says so.
fn fit(resolver: &mut Resolver) -> Vec<Notice> {
    let (servers, searches) = (resolver.servers.len(), resolver.searches.len());
    resolver.servers.truncate(MAX_SERVERS);
    resolver.searches.truncate(MAX_SEARCHES);
    while resolver.searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        resolver.searches.pop();
    }
    let rows = [
        ("name servers", servers, &resolver.servers, "at most 3"),
        ("search domains", searches, &resolver.searches, "at most 32, and 2048 characters"),
    ];
    let short = rows.into_iter().filter(|(_, before, now, _)| now.len() < *before);
    let notice = |(what, _, now, limit): (&str, usize, &Vec<String>, &str)| Notice {
        reason: "DNSConfigForming",
        message: format!("too many {what} ({limit}), some are left out; applied are: {}", now.join(" ")),
    };
    short.map(notice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::tests::pod_with;

    const MACHINE: &str = "# made by hand\nnameserver 10.0.0.2\nnameserver 10.0.0.3 # second\nsearch old.org\n\
                           search corp.org. cluster.local\noptions timeout:1 rotate\n";

    fn of(spec: &str, cluster_dns: &[&str]) -> (String, Vec<&'static str>) {
        let mut options = AgentOptions::new("node1");
        options.cluster_dns = cluster_dns.iter().map(|s| (*s).to_owned()).collect();
        options.cluster_domain = Some("cluster.local".into());
        let (resolver, notices) = resolver(&pod_with(spec, ""), MACHINE, &options);
        (resolver.to_string(), notices.iter().map(|notice| notice.reason).collect())
    }

    #[test]
    fn the_policy_decides_between_the_clusters_resolver_the_machines_and_none() {
        let machine =
            "nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch corp.org cluster.local\noptions timeout:1 rotate\n";
        let cluster = "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local corp.org\n\
                       options ndots:5\n";
        let dns = ["10.96.0.10"];
        for (spec, cluster_dns, expected, reasons) in [
            ("", &dns[..], cluster, vec![]),
            ("dnsPolicy: ClusterFirst", &dns, cluster, vec![]),
            ("dnsPolicy: Default", &dns, machine, vec![]),
            ("hostNetwork: true", &dns, machine, vec![]),
            ("hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet", &dns, cluster, vec![]),
            ("", &[], machine, vec!["MissingClusterDNS"]),
            ("hostNetwork: true", &[], machine, vec![]),
            ("dnsPolicy: None\n  dnsConfig: {nameservers: [1.1.1.1]}", &dns, "nameserver 1.1.1.1\n", vec![]),
        ] {
            assert_eq!(of(spec, cluster_dns), (expected.to_owned(), reasons), "{spec:?} {cluster_dns:?}");
        }
    }

    #[test]
    fn the_pods_own_settings_are_added_and_its_options_win() {
        let (text, notices) = of(
            "dnsConfig: {nameservers: [10.96.0.10, 1.1.1.1], searches: [corp.org, mine.org], options: \
             [{name: ndots, value: '2'}, {name: edns0}]}",
            &["10.96.0.10"],
        );
        assert_eq!(
            text,
            "nameserver 10.96.0.10\nnameserver 1.1.1.1\nsearch default.svc.cluster.local svc.cluster.local \
             cluster.local corp.org mine.org\noptions ndots:2 edns0\n"
        );
        assert!(notices.is_empty());
    }

    #[test]
    fn what_a_resolver_would_not_read_is_left_out_and_told() {
        let searches: Vec<_> = (0..32).map(|n| format!("d{n}")).collect();
        let own = format!("nameservers: [1.1.1.1, 2.2.2.2, 3.3.3.3], searches: [{}]", searches.join(", "));
        let (text, notices) = of(&format!("dnsConfig: {{{own}}}"), &["10.96.0.10"]);
        assert_eq!(text.matches("nameserver").count(), 3);
        assert!(
            text.contains(" d27\n") && !text.contains("d28"),
            "after three of the cluster and the machine's: {text}"
        );
        assert_eq!(notices, ["DNSConfigForming", "DNSConfigForming"]);
        let long: Vec<_> = (0..20).map(|n| format!("{0}.{0}.{0}.{1}{n:02}", "x".repeat(49), "x".repeat(48))).collect();
        let spec = format!("dnsPolicy: None\n  dnsConfig: {{nameservers: [1.1.1.1], searches: [{}]}}", long.join(", "));
        let (text, _) = of(&spec, &[]);
        assert_eq!(text.split_whitespace().count(), 3 + 10, "ten of 200 characters and nine spaces fit");
    }
}
