//! Prometheus' text format.

use std::fmt::{self, Write};

use ::http::{Response, StatusCode};

use crate::agent::histogram::{Counters, Counts, Histogram, Histograms, Labels};
use crate::agent::server::http::{Body, respond};

/// A value with its labels.
pub type Sample = (Vec<(&'static str, String)>, f64);

/// A metric: its name, what it is, and its values with their labels. A first label without a name is what follows the
/// metric's name: a histogram has buckets, a sum and a count.
#[derive(Debug, Clone)]
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

/// A counter by labels, which have these names.
pub fn counters<const N: usize>(
    (name, help): (&'static str, &'static str),
    names: [&'static str; N],
    counted: &Counters<N>,
) -> Family {
    let samples = counted.all().into_iter().map(|(labels, count)| (named(names, labels), number(count)));
    Family { name, kind: "counter", help, samples: samples.collect() }
}

/// A histogram by labels, which have these names.
pub fn histograms<const N: usize>(
    (name, help): (&'static str, &'static str),
    names: [&'static str; N],
    counted: &Histograms<N>,
) -> Family {
    let all = counted.all().into_iter();
    let samples = all.flat_map(|(labels, counts)| series(&named(names, labels), &counts)).collect();
    Family { name, kind: "histogram", help, samples }
}

/// A histogram without labels.
pub fn histogram(name: &'static str, help: &'static str, counted: &Histogram) -> Family {
    Family { name, kind: "histogram", help, samples: series(&[], &counted.get()) }
}

fn named<const N: usize>(names: [&'static str; N], labels: Labels<N>) -> Vec<(&'static str, String)> {
    names.into_iter().zip(labels.map(Into::into)).collect()
}

/// The values of one series of a histogram: how often what is counted was no larger than each bound, all of it, and how
/// often in all.
pub fn series(labels: &[(&'static str, String)], counts: &Counts) -> Vec<Sample> {
    let Counts { bounds, within, count, sum } = counts;
    let (count, sum) = (*count, *sum);
    let sample = |suffix: &str, le: Option<String>, value: f64| {
        let first = [("", suffix.to_owned())].into_iter();
        let bound = le.map(|bound| ("le", bound));
        (first.chain(labels.iter().cloned()).chain(bound).collect(), value)
    };
    let buckets =
        bounds.iter().zip(within).map(|(bound, count)| sample("_bucket", Some(bound.to_string()), number(*count)));
    let all = sample("_bucket", Some("+Inf".to_owned()), number(count));
    let ends = [all, sample("_sum", None, sum), sample("_count", None, number(count))];
    buckets.chain(ends).collect()
}

/// Counts stay far below where this would lose any of them.
#[allow(clippy::cast_precision_loss, reason = "nothing is counted that often")]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// The answer with all families. `at` is when they were measured, in milliseconds since the epoch, where that is written.
pub fn answer(families: &[Family], at: Option<i64>) -> Response<Body> {
    let text = families.iter().fold(String::new(), |text, family| text + &render(family, at));
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// A value as Prometheus reads it.
struct Value(f64);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value.is_infinite() => f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            value => write!(f, "{value}"),
        }
    }
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
        let _ = writeln!(text, "{name}{suffix}{labels} {}{at}", Value(*value));
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
        assert!(render(&gauge("y", "Y", f64::INFINITY), None).ends_with("\ny +Inf\n"));
        let counted = Histograms::new(&[0.5]);
        for half in [1, 4] {
            counted.time(["z".into()], std::time::Duration::from_millis(500 * half));
        }
        let text = render(&histograms(("z", "Z"), ["of"], &counted), None);
        let expected = "# HELP z Z\n# TYPE z histogram\nz_bucket{of=\"z\",le=\"0.5\"} 1\nz_bucket{of=\"z\",le=\"+Inf\"} 2\n\
                        z_sum{of=\"z\"} 2.5\nz_count{of=\"z\"} 2\n";
        assert_eq!(text, expected);
    }
}
