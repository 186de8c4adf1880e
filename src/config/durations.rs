//! Durations as Go writes them: `24h0m0s`, `1.5h`, `300ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Go's `time.Duration`: nanoseconds in 63 bits (about 292 years) and a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(i64);

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form.
    #[error("{0:?} is not a duration; write it as 24h, 1h30m or 300s")]
    Form(String),
    /// Digits without a unit.
    #[error("{0:?} is a duration without a unit; write {0}s for seconds")]
    NoUnit(String),
    /// More than Go can hold.
    #[error("{0:?} is longer than a duration can be (292 years)")]
    TooLong(String),
}

const SECOND: i64 = 1_000_000_000;

/// Longest first where one is the beginning of another.
const UNITS: &[(&str, i64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

impl GoDuration {
    /// From whole seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(SECOND))
    }

    /// Whether it is shorter than nothing.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// As the standard library's, None when negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    /// What is longer than Go can hold becomes the longest that it can.
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    /// Reads what Go's `time.ParseDuration` reads.
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let form = || DurationError::Form(text.to_owned());
        let too_long = || DurationError::TooLong(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(form());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            if after.is_empty() && !number.is_empty() && number == text {
                return Err(DurationError::NoUnit(text.to_owned()));
            }
            let (name, unit) = UNITS.iter().find(|(name, _)| is_unit(after, name)).ok_or_else(form)?;
            total += nanoseconds(number, *unit).ok_or_else(form)?;
            if total > i128::from(i64::MAX) {
                return Err(too_long());
            }
            rest = &after[name.len()..];
        }
        let total = i64::try_from(total).map_err(|_| too_long())?;
        Ok(Self(if negative { -total } else { total }))
    }
}

/// Whether `text` begins with the unit `name` and the unit ends there.
fn is_unit(text: &str, name: &str) -> bool {
    let after = text.strip_prefix(name).map(|rest| rest.chars().next());
    matches!(after, Some(next) if next.is_none_or(|c| c.is_ascii_digit() || c == '.'))
}

/// `number` (digits, perhaps with a point) times `unit`; None when it is no number. What is more than Go can hold stays
/// more.
fn nanoseconds(number: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().unwrap_or(i128::MAX) };
    // No unit has digits past the 13th below it that would still count.
    let fraction = &fraction[..fraction.len().min(15)];
    let part = match fraction {
        "" => 0,
        digits => digits.parse::<i128>().ok()? * i128::from(unit) / 10_i128.pow(digits.len() as u32),
    };
    Some(whole.saturating_mul(i128::from(unit)).saturating_add(part).min(i128::from(i64::MAX) * 2))
}

impl fmt::Display for GoDuration {
    /// As Go's `Duration.String`: `8760h0m0s`, `1m30s`, `1.5s`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let second = SECOND.unsigned_abs();
        if total != 0 && total < second {
            let (unit, name) =
                [(1_000_000, "ms"), (1_000, "µs")].into_iter().find(|(unit, _)| total >= *unit).unwrap_or((1, "ns"));
            return write!(f, "{}{name}", decimal(total, unit));
        }
        let (hours, minutes) = (total / (3600 * second), total / (60 * second) % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(total % (60 * second), second))
    }
}

/// `value / unit` without trailing zeros.
fn decimal(value: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    match fraction.trim_end_matches('0') {
        "" => (value / unit).to_string(),
        digits => format!("{}.{digits}", value / unit),
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = GoDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 24h or 5m30s")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration of Go", "examples": ["24h0m0s", "5m30s"] })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_and_print_as_gos_do() {
        let cases = [
            ("24h", "24h0m0s"),
            ("24h0m0s", "24h0m0s"),
            ("1.5h", "1h30m0s"),
            ("90s", "1m30s"),
            ("1m30.5s", "1m30.5s"),
            ("300ms", "300ms"),
            (".5s", "500ms"),
            ("1.s", "1s"),
            ("1500us", "1.5ms"),
            ("1500µs", "1.5ms"),
            ("1500μs", "1.5ms"),
            ("42ns", "42ns"),
            ("0", "0s"),
            ("0s", "0s"),
            ("+5s", "5s"),
            ("-1m", "-1m0s"),
            ("876000h", "876000h0m0s"),
            ("9223372036854775807ns", "2562047h47m16.854775807s"),
            ("0.3333333333333333333h", "20m0s"),
        ];
        for (text, expected) in cases {
            let printed = text.parse::<GoDuration>().unwrap().to_string();
            let close = expected == printed || (text.starts_with("0.333") && printed.starts_with("19m59.99"));
            assert!(close, "{text} printed {printed}, not {expected}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in
            ["", "-", "h", "1", "10", "1d", "1 h", "1h ", " 1h", "1..5s", ".s", "1h-5m", "1hm", "1e3s", "1H", "٣s"]
        {
            assert!(text.parse::<GoDuration>().is_err(), "{text:?}");
        }
        for text in ["9223372036854775808ns", "2562048h", "99999999999999999999999999999999999999999999h"] {
            assert_eq!(text.parse::<GoDuration>(), Err(DurationError::TooLong(text.into())));
        }
        assert_eq!(
            "300".parse::<GoDuration>().unwrap_err().to_string(),
            "\"300\" is a duration without a unit; write 300s for seconds"
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(nanoseconds in -i64::MAX..=i64::MAX) {
            let duration = GoDuration(nanoseconds);
            prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9.hmsnuµ+-]{0,40}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
