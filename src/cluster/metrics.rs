//! Metrics of an API server, in Prometheus' text format, and what they say of deprecated APIs that are in use.

use std::collections::BTreeMap;

use serde::Serialize;

/// The API server's gauge of requests for APIs that a later release no longer serves, since that API server started.
const DEPRECATED_APIS: &str = "apiserver_requested_deprecated_apis";

/// One line: a name, labels and a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// The samples of `text`. Comments and what is no sample are passed over: one line says nothing of the others.
pub fn samples(text: &str) -> impl Iterator<Item = Sample> {
    text.lines().filter_map(|line| sample(line.trim()))
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A time may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

/// A value up to its closing quote, and what follows it. `\\`, `\"` and `\n` are escapes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// An API that was called and that a release removes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeprecatedApi {
    /// Its group; empty for the core.
    pub group: String,
    /// Its version.
    pub version: String,
    /// The resource.
    pub resource: String,
    /// The subresource; empty for the resource itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// The release that does not serve it any more, `1.22`; None where that is not decided.
    pub removed_release: Option<String>,
}

impl DeprecatedApi {
    /// Whether Kubernetes 1.`minor` does not serve it.
    pub fn is_gone_in(&self, minor: u64) -> bool {
        let removed = self.removed_release.as_deref().and_then(|release| release.split_once('.'));
        removed.is_some_and(|(major, removed)| {
            major == "1" && removed.parse::<u64>().is_ok_and(|removed| removed <= minor)
        })
    }

    /// As `kubectl` names it: `ingresses.v1beta1.extensions`.
    pub fn name(&self) -> String {
        let sub = if self.subresource.is_empty() { String::new() } else { format!("/{}", self.subresource) };
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        format!("{}.{}{group}{sub}", self.resource, self.version)
    }
}

/// The deprecated APIs that have been called since the API server started, each once.
pub fn deprecated_apis(text: &str) -> Vec<DeprecatedApi> {
    let mut all: Vec<DeprecatedApi> = samples(text)
        .filter(|sample| sample.name == DEPRECATED_APIS && sample.value > 0.0)
        .map(|mut sample| {
            let mut label = |name: &str| sample.labels.remove(name).unwrap_or_default();
            DeprecatedApi {
                group: label("group"),
                version: label("version"),
                resource: label("resource"),
                subresource: label("subresource"),
                removed_release: Some(label("removed_release")).filter(|release| !release.is_empty()),
            }
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs that have been requested
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group="extensions",removed_release="1.22",resource="ingresses",subresource="",version="v1beta1"} 1
apiserver_requested_deprecated_apis{group="",removed_release="",resource="componentstatuses",subresource="",version="v1"} 1 1700000000000
apiserver_requested_deprecated_apis{group="policy",removed_release="1.25",resource="podsecuritypolicies",subresource="status",version="v1beta1",} 0
apiserver_request_total 12
no sample
apiserver_requested_deprecated_apis{group="extensions
"#;

    #[test]
    fn apis_that_were_called_are_found_with_the_release_that_removes_them() {
        let found = deprecated_apis(TEXT);
        assert_eq!(found.len(), 2, "{found:?}");
        let (core, ingresses) = (&found[0], &found[1]);
        assert_eq!((core.name().as_str(), &core.removed_release), ("componentstatuses.v1", &None));
        assert_eq!(ingresses.name(), "ingresses.v1beta1.extensions");
        let gone = |api: &DeprecatedApi| [20, 21, 22, 37].map(|minor| api.is_gone_in(minor));
        assert_eq!((gone(ingresses), gone(core)), ([false, false, true, true], [false; 4]));
    }

    #[test]
    fn labels_may_have_quotes_braces_and_commas_in_their_values() {
        let line = r#"m:x { a = "say \"hi\", {all}\\\n" , b="" } 1.5e3"#;
        let found = sample(line).unwrap();
        assert_eq!((found.name.as_str(), found.value), ("m:x", 1500.0));
        assert_eq!(found.labels["a"], "say \"hi\", {all}\\\n");
        assert_eq!(found.labels["b"], "");
        assert_eq!(sample("up NaN").unwrap().name, "up");
        for wrong in ["", "# HELP x", "x", "x{a=\"b\" 1", "x{a=b} 1", "{a=\"b\"} 1", "x{a=\"b\\"] {
            assert_eq!(sample(wrong), None, "{wrong}");
        }
    }
}
