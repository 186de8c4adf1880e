//! What a request asks for, in the words in which rights are given: a verb on a subresource of `nodes` (the kubelet's
//! `NodeRequestAttributesGetter`).

use http::Method;

/// The paths that have a subresource of their own. Those with several are allowed to a user who may the first or one of the
/// others. Everything else is `proxy`.
const SUBRESOURCES: &[(&str, &[&str])] = &[
    ("/stats", &["stats"]),
    ("/metrics", &["metrics"]),
    ("/logs", &["log"]),
    ("/checkpoint", &["checkpoint"]),
    ("/pods", &["pods", PROXY]),
    ("/runningpods", &["pods", PROXY]),
    ("/healthz", &["healthz", PROXY]),
    ("/configz", &["configz", PROXY]),
    ("/flagz", &["configz", PROXY]),
    ("/statusz", &["statusz", PROXY]),
];
const PROXY: &str = "proxy";

/// What a client wants to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// `get`, `create`, ...
    pub verb: &'static str,
    /// The Node.
    pub node: String,
    /// What of it.
    pub subresource: &'static str,
}

/// Of which any one is enough, in order.
pub fn attributes(node: &str, method: &Method, path: &str) -> Vec<Attributes> {
    let of = |subresource: &&'static str| Attributes { verb: verb(method), node: node.to_owned(), subresource };
    subresources(path).iter().map(of).collect()
}

/// The subresources of a path.
pub fn subresources(path: &str) -> &'static [&'static str] {
    let below = |parent: &str| path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let found = SUBRESOURCES.iter().find(|(parent, _)| below(parent));
    found.map_or(&[PROXY], |(_, subresources)| subresources)
}

/// The verb of a method; empty, which is allowed to no user, for one that has none.
pub fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_subresources() {
        for (path, expected) in [
            ("/stats/summary", "stats"),
            ("/stats", "stats"),
            ("/metrics/cadvisor", "metrics"),
            ("/logs/", "log"),
            ("/checkpoint/a/b/c", "checkpoint"),
            ("/pods", "pods proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz/syncloop", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/flagz", "configz proxy"),
            ("/statusz", "statusz proxy"),
            ("/exec/ns/p/c", "proxy"),
            ("/containerLogs/ns/p/c", "proxy"),
            ("/portForward/ns/p", "proxy"),
            ("/run/ns/p/c", "proxy"),
            ("/statsx", "proxy"),
            ("/", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), expected, "{path}");
        }
    }

    #[test]
    fn a_stream_over_web_sockets_is_read_and_one_over_spdy_is_made() {
        let exec = |method| attributes("n", &method, "/exec/ns/p/c");
        let expected = |verb| vec![Attributes { verb, node: "n".into(), subresource: "proxy" }];
        assert_eq!(exec(Method::GET), expected("get"));
        assert_eq!(exec(Method::POST), expected("create"));
        assert_eq!(exec(Method::TRACE), expected(""));
    }
}
