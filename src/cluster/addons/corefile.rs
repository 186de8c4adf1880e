//! A user's own Corefile on its way to a newer CoreDNS: what that does not know any more is taken out, and all
//! else, comments too, stays as it is. Facts from the release notes of CoreDNS and from its plugins' documentation.

/// Plugins of the CoreDNS that Kubernetes ships. Another one is of a custom build, and it is not known here
/// whether the next CoreDNS has it.
const PLUGINS: &[&str] = &[
    "acl",
    "any",
    "auto",
    "autopath",
    "azure",
    "bind",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "clouddns",
    "debug",
    "dns64",
    "dnssec",
    "dnstap",
    "erratic",
    "errors",
    "etcd",
    "file",
    "forward",
    "geoip",
    "grpc",
    "grpc_server",
    "header",
    "health",
    "hosts",
    "https",
    "https3",
    "import",
    "k8s_external",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "multisocket",
    "nomad",
    "nsid",
    "pprof",
    "prometheus",
    "quic",
    "ready",
    "reload",
    "rewrite",
    "root",
    "route53",
    "secondary",
    "sign",
    "template",
    "timeouts",
    "tls",
    "trace",
    "transfer",
    "tsig",
    "view",
    "whoami",
];

/// What becomes of something that a newer CoreDNS does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It had no effect any more: it goes.
    Dropped,
    /// Another one does the same: its name is put in its place.
    Renamed(&'static str),
    /// It did something that only its owner can replace.
    Unsolved,
}

/// A plugin, or an option of one, that was removed.
struct Removed {
    plugin: &'static str,
    option: Option<&'static str>,
    /// The first CoreDNS without it.
    since: (u64, u64),
    fate: Fate,
}

const fn removed(plugin: &'static str, option: Option<&'static str>, since: (u64, u64), fate: Fate) -> Removed {
    Removed { plugin, option, since, fate }
}

/// What was removed on the way to the releases in the table.
const REMOVED: &[Removed] = &[
    removed("proxy", None, (1, 5), Fate::Renamed("forward")),
    removed("federation", None, (1, 7), Fate::Unsolved),
    removed("kubernetes", Some("upstream"), (1, 7), Fate::Dropped),
    removed("kubernetes", Some("resyncperiod"), (1, 7), Fate::Dropped),
    removed("k8s_external", Some("upstream"), (1, 7), Fate::Dropped),
    removed("etcd", Some("upstream"), (1, 7), Fate::Dropped),
    removed("file", Some("upstream"), (1, 7), Fate::Dropped),
    removed("auto", Some("upstream"), (1, 7), Fate::Dropped),
    removed("secondary", Some("upstream"), (1, 7), Fate::Dropped),
    removed("route53", Some("upstream"), (1, 7), Fate::Dropped),
    // Zone transfers have a plugin of their own since.
    removed("kubernetes", Some("transfer"), (1, 8), Fate::Unsolved),
    removed("file", Some("transfer"), (1, 8), Fate::Unsolved),
    removed("auto", Some("transfer"), (1, 8), Fate::Unsolved),
    removed("secondary", Some("transfer"), (1, 8), Fate::Unsolved),
];

/// A Corefile that cannot be brought to a newer CoreDNS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorefileError {
    /// Plugins that CoreDNS as Kubernetes ships it has not.
    #[error("the Corefile has plugins that are not supported: {}", plugins.join(", "))]
    Unsupported {
        /// Which.
        plugins: Vec<String>,
    },
    /// Something whose work only its owner can give to another.
    #[error("line {line} of the Corefile: CoreDNS {}.{} has no {what} any more; change it (kubectl -n kube-system edit configmap coredns) and try again", since.0, since.1)]
    Unsolved {
        /// Which line, from 1.
        line: usize,
        /// What it is.
        what: String,
        /// The first CoreDNS without it.
        since: (u64, u64),
    },
    /// Brackets that do not fit.
    #[error("line {line} of the Corefile: {problem}")]
    Form {
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

impl CorefileError {
    /// kubeadm's name of the check that finds it.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "CoreDNSUnsupportedPlugins",
            Self::Unsolved { .. } | Self::Form { .. } => "CoreDNSMigration",
        }
    }
}

/// Where a line of a Corefile stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// Names of a server, of a snippet, or nothing at all.
    Outside,
    /// A plugin, by its name.
    Plugin(&'a str),
    /// An option of a plugin: both names.
    Option(&'a str, &'a str),
    /// Deeper, or a bracket.
    Inside,
}

/// Each line and where it stands.
fn places(text: &str) -> Result<Vec<(&str, Place<'_>)>, CorefileError> {
    let (mut depth, mut plugin) = (0_usize, "");
    let mut all = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let words = words(line);
        let first = words.first().copied().filter(|word| *word != "{" && *word != "}");
        let place = match (depth, first) {
            (0, _) => Place::Outside,
            (1, Some(name)) => {
                plugin = name;
                Place::Plugin(name)
            }
            (2, Some(name)) => Place::Option(plugin, name),
            _ => Place::Inside,
        };
        for word in &words {
            match *word {
                "{" => depth += 1,
                "}" => {
                    depth = depth
                        .checked_sub(1)
                        .ok_or(CorefileError::Form { line: index + 1, problem: "a } that closes nothing" })?;
                }
                _ => {}
            }
        }
        all.push((line, place));
    }
    if depth > 0 {
        return Err(CorefileError::Form { line: all.len(), problem: "a { is not closed" });
    }
    Ok(all)
}

/// The words of a line without its comment; quoted ones are one.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let end = match rest.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map_or(rest.len(), |at| at + 2),
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

fn fate(plugin: &str, option: Option<&str>, version: (u64, u64)) -> Option<&'static Removed> {
    REMOVED.iter().find(|row| row.plugin == plugin && row.option == option && row.since <= version)
}

/// The Corefile as CoreDNS `version` takes it.
///
/// # Errors
/// See [`CorefileError`]; the first by line, plugins that are not supported before all others.
pub fn migrated(text: &str, version: (u64, u64)) -> Result<String, CorefileError> {
    let places = places(text)?;
    let is_unsupported = |name: &str| !PLUGINS.contains(&name) && !REMOVED.iter().any(|row| row.plugin == name);
    let mut plugins: Vec<String> = places
        .iter()
        .filter_map(|(_, place)| match place {
            Place::Plugin(name) if is_unsupported(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    plugins.sort();
    plugins.dedup();
    if !plugins.is_empty() {
        return Err(CorefileError::Unsupported { plugins });
    }
    let mut lines = Vec::new();
    for (index, (line, place)) in places.into_iter().enumerate() {
        let (row, what) = match place {
            Place::Plugin(name) => (fate(name, None, version), format!("plugin {name}")),
            Place::Option(plugin, name) => {
                (fate(plugin, Some(name), version), format!("option {name} of the plugin {plugin}"))
            }
            Place::Outside | Place::Inside => (None, String::new()),
        };
        match row.map(|row| (row.fate, row.since)) {
            None => lines.push(line.to_owned()),
            Some((Fate::Dropped, _)) => {}
            Some((Fate::Renamed(name), _)) => lines.push(line.replacen(words(line)[0], name, 1)),
            Some((Fate::Unsolved, since)) => return Err(CorefileError::Unsolved { line: index + 1, what, since }),
        }
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# ours\n.:53 {\n    errors\n    log # every query\n    kubernetes cluster.local {\n       pods insecure\n       \
                       upstream\n       resyncperiod 5m\n       ttl 30\n    }\n    hosts {\n       10.0.0.1 upstream.example\n       \
                       fallthrough\n    }\n    forward . /etc/resolv.conf\n}\n(snip) {\n    cache 10\n}\n";

    #[test]
    fn what_has_no_effect_any_more_goes_and_all_else_stays() {
        let new = migrated(OLD, (1, 14)).unwrap();
        assert_eq!(new, OLD.replace("       upstream\n       resyncperiod 5m\n", ""));
        assert_eq!(migrated(&new, (1, 14)).unwrap(), new);
        let proxy = migrated(".:53 {\n    proxy . 8.8.8.8\n}\n", (1, 7)).unwrap();
        assert_eq!(proxy, ".:53 {\n    forward . 8.8.8.8\n}\n");
    }

    #[test]
    fn what_is_removed_only_later_stays_until_then() {
        let text = ".:53 {\n    kubernetes c {\n        transfer to *\n    }\n}\n";
        assert_eq!(migrated(text, (1, 7)).unwrap(), text);
        let error = migrated(text, (1, 14)).unwrap_err();
        assert_eq!(error.check(), "CoreDNSMigration");
        assert!(error.to_string().starts_with("line 3 of the Corefile: CoreDNS 1.8 has no option transfer"), "{error}");
    }

    #[test]
    fn plugins_of_somebodys_own_build_are_named_and_what_is_no_corefile_is_found() {
        let error = migrated(".:53 {\n    unbound\n    errors\n    alias\n}\n", (1, 14)).unwrap_err();
        assert_eq!(error, CorefileError::Unsupported { plugins: vec!["alias".into(), "unbound".into()] });
        assert_eq!(error.check(), "CoreDNSUnsupportedPlugins");
        for (text, line) in [(".:53 {\n errors\n", 3), ("}\n", 1)] {
            let Err(CorefileError::Form { line: found, .. }) = migrated(text, (1, 14)) else { panic!("{text}") };
            assert_eq!(found, line);
        }
    }
}
