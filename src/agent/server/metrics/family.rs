//! Prometheus' text format.

use std::fmt::Write;

use ::http::{Response, StatusCode};

use crate::agent::server::http::{Body, respond};

/// A value with its labels.
pub type Sample = (Vec<(&'static str, String)>, f64);

/// A metric: its name, what it is, and its values with their labels. A first label without a name is what follows the
/// metric's name: a histogram has buckets, a sum and a count.
pub struct Family {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
    pub samples: Vec<Sample>,
}

/// One value that goes up and down.
pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Family {
    Family { name, kind: "gauge", help, samples: vec![(vec![], value)] }
}

/// One value that only grows.
pub fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family { name, kind: "counter", help, samples: vec![(vec![], number(value))] }
}

/// The values of one series of a histogram: how often what is counted was no larger than each bound, all of it, and how
/// often in all.
pub fn histogram(labels: &[(&'static str, String)], within: &[(f64, u64)], sum: f64, count: u64) -> Vec<Sample> {
    let sample = |suffix: &str, le: Option<String>, value: f64| {
        let first = [("", suffix.to_owned())].into_iter();
        let bound = le.map(|bound| ("le", bound));
        (first.chain(labels.iter().cloned()).chain(bound).collect(), value)
    };
    let buckets = within.iter().map(|(bound, count)| sample("_bucket", Some(bound.to_string()), number(*count)));
    let all = sample("_bucket", Some("+Inf".to_owned()), number(count));
    let ends = [all, sample("_sum", None, sum), sample("_count", None, number(count))];
    buckets.chain(ends).collect()
}

/// Counts stay far below where this would lose any of them.
#[allow(clippy::cast_precision_loss, reason = "nothing is counted that often")]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// The answer with all families. `at` is when they were measured, in milliseconds since the epoch, where that is told.
pub fn answer(families: &[Family], at: Option<i64>) -> Response<Body> {
    let text = families.iter().fold(String::new(), |text, family| text + &render(family, at));
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn render(family: &Family, at: Option<i64>) -> String {
    let Family { name, kind, help, samples } = family;
    let mut text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    let at = at.map_or_else(String::new, |at| format!(" {at}"));
    for (labels, value) in samples {
        let (suffix, labels) = match labels.split_first() {
            Some((("", suffix), labels)) => (suffix.as_str(), labels),
            _ => ("", labels.as_slice()),
        };
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}{suffix}{labels} {value}{at}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_written_as_prometheus_reads_it() {
        let labels = vec![("pod", "a\"b\\c\nd".to_owned()), ("result", "failed".to_owned())];
        let family = Family { name: "x_total", kind: "counter", help: "Xs", samples: vec![(labels, 3.0)] };
        let expected =
            "# HELP x_total Xs\n# TYPE x_total counter\nx_total{pod=\"a\\\"b\\\\c\\nd\",result=\"failed\"} 3\n";
        assert_eq!(render(&family, None), expected);
        assert!(render(&gauge("y", "Y", 1.5), Some(12)).ends_with("\ny 1.5 12\n"));
        let samples = histogram(&[("of", "z".to_owned())], &[(0.5, 1)], 2.5, 2);
        let text = render(&Family { name: "z", kind: "histogram", help: "Z", samples }, None);
        let expected = "# HELP z Z\n# TYPE z histogram\nz_bucket{of=\"z\",le=\"0.5\"} 1\nz_bucket{of=\"z\",le=\"+Inf\"} 2\n\
                        z_sum{of=\"z\"} 2.5\nz_count{of=\"z\"} 2\n";
        assert_eq!(text, expected);
    }
}
