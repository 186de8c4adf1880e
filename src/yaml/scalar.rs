//! What a scalar is to Kubernetes: the typing rules of go-yaml v2, whatever schema the parser itself follows.

use serde_json::Number;

use super::node::Kind;

/// Plain words that are no text, in exactly these spellings: `yEs` is a text.
const WORDS: &[(&[&str], Scalar<'static>)] = &[
    (&["", "~", "null", "Null", "NULL"], Scalar::Null),
    (&["y", "Y", "yes", "Yes", "YES"], Scalar::Bool(true)),
    (&["true", "True", "TRUE"], Scalar::Bool(true)),
    (&["on", "On", "ON"], Scalar::Bool(true)),
    (&["n", "N", "no", "No", "NO"], Scalar::Bool(false)),
    (&["false", "False", "FALSE"], Scalar::Bool(false)),
    (&["off", "Off", "OFF"], Scalar::Bool(false)),
    (&[".nan", ".NaN", ".NAN"], Scalar::Float(f64::NAN)),
    (&[".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], Scalar::Float(f64::INFINITY)),
    (&["-.inf", "-.Inf", "-.INF"], Scalar::Float(f64::NEG_INFINITY)),
];
/// Prefixes of whole numbers with their base; a lone 0 in front means octal.
const BASES: &[(&str, u32)] = &[("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)];
/// From here on `%g` of 32 bits writes an exponent.
const KEY_DIGITS: i32 = 6;

/// A scalar as Go holds it before it is written as JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// One that is too large for a sign.
    Uint(u64),
    Float(f64),
    Text(&'a str),
}

/// A plain scalar without a tag.
pub(super) fn plain(text: &str) -> Scalar<'_> {
    if let Some((_, word)) = WORDS.iter().find(|(spellings, _)| spellings.contains(&text)) {
        return *word;
    }
    match text.as_bytes().first() {
        // Underscores are passed over, but for what begins with the point.
        Some(b'0'..=b'9' | b'+' | b'-') => number(&text.replace('_', "")).unwrap_or(Scalar::Text(text)),
        Some(b'.') => float(text).unwrap_or(Scalar::Text(text)),
        _ => Scalar::Text(text),
    }
}

/// A scalar with the tag `!!suffix`; None where its text is not of that type. Tags that nothing is known of mean text.
pub(super) fn tagged<'a>(suffix: &str, text: &'a str) -> Option<Scalar<'a>> {
    let value = plain(text);
    let fits = match suffix {
        "null" => value == Scalar::Null,
        "bool" => matches!(value, Scalar::Bool(_)),
        "int" => matches!(value, Scalar::Int(_) | Scalar::Uint(_)),
        "float" => matches!(value, Scalar::Int(_) | Scalar::Float(_)),
        _ => return Some(Scalar::Text(text)),
    };
    fits.then_some(value)
}

impl Scalar<'_> {
    /// The value as JSON carries it, where `1.8e4` is 18000; None for numbers without end, which JSON has none of.
    pub(super) fn kind(self) -> Option<Kind> {
        Some(match self {
            Self::Null => Kind::Null,
            Self::Bool(value) => Kind::Bool(value),
            Self::Int(number) => Kind::Number(number.into()),
            Self::Uint(number) => Kind::Number(number.into()),
            Self::Float(number) => Kind::Number(whole(number).map_or_else(|| Number::from_f64(number), Some)?),
            Self::Text(text) => Kind::String(text.to_owned()),
        })
    }

    /// The key of a map that it is; None for null, which is no key to Go.
    pub(super) fn key(self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(value) => value.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Uint(number) => number.to_string(),
            Self::Float(number) => float_key(number),
            Self::Text(text) => text.to_owned(),
        })
    }
}

/// The whole number that `number` is: Go writes 1e3 into its JSON as 1000, which then fits an integer field.
fn whole(number: f64) -> Option<Number> {
    // Both bounds are exact as floating-point numbers.
    let (least, beyond) = (i64::MIN as f64, u64::MAX as f64);
    if number.fract() != 0.0 || !(least..beyond).contains(&number) {
        return None;
    }
    Some(if number < 0.0 { (number as i64).into() } else { (number as u64).into() })
}

/// `strconv.FormatFloat(number, 'g', -1, 32)`, by which keys are written.
fn float_key(number: f64) -> String {
    let short = number as f32;
    if !short.is_finite() {
        return if number.is_nan() {
            ".nan"
        } else if number > 0.0 {
            ".inf"
        } else {
            "-.inf"
        }
        .to_owned();
    }
    let scientific = format!("{short:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..KEY_DIGITS).contains(&exponent) {
        return short.to_string();
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A number without underscores; None for what is none, such as `1.2.3`, `12:30` and `2001-01-01`.
fn number(text: &str) -> Option<Scalar<'static>> {
    integer(text).or_else(|| float(text))
}

/// `strconv.ParseInt` and `ParseUint` with base 0.
fn integer(text: &str) -> Option<Scalar<'static>> {
    let (sign, digits) = match text.split_at_checked(1) {
        Some((sign @ ("+" | "-"), digits)) => (sign, digits),
        _ => ("", text),
    };
    let based = BASES.iter().find_map(|(prefix, base)| Some((digits.strip_prefix(prefix)?, *base)));
    let (digits, base) = match (based, digits.strip_prefix('0')) {
        (Some(based), _) => based,
        (None, Some("")) => ("0", 10),
        (None, Some(octal)) => (octal, 8),
        (None, None) => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, base).ok()?;
    match sign {
        "-" => 0i64.checked_sub_unsigned(magnitude).map(Scalar::Int),
        _ => match i64::try_from(magnitude) {
            Ok(number) => Some(Scalar::Int(number)),
            Err(_) => sign.is_empty().then_some(Scalar::Uint(magnitude)),
        },
    }
}

/// Digits, a point with digits before or behind it, an exponent.
fn float(text: &str) -> Option<Scalar<'static>> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (digits, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let all = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let good = all(before) && all(behind) && !(before.is_empty() && behind.is_empty());
    let good = good && exponent.is_none_or(|exponent| !exponent.is_empty() && all(exponent));
    // What is too large for a float is a text.
    text.parse().ok().filter(|number: &f64| good && number.is_finite()).map(Scalar::Float)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Option<serde_json::Value> {
        plain(text)
            .kind()
            .map(|kind| super::super::Node::new(super::super::Position { line: 1, column: 1 }, kind).to_value())
    }

    #[test]
    fn numbers_have_the_spellings_of_go() {
        for (text, expected) in [
            // A parser of YAML 1.2 takes the capital prefixes for text in one version and for numbers in the next.
            ("0X1F", json!(31)),
            ("0x1f", json!(31)),
            ("-0x1F", json!(-31)),
            ("+0x1F", json!(31)),
            ("0O17", json!(15)),
            ("0o17", json!(15)),
            ("017", json!(15)),
            ("0B11", json!(3)),
            ("0b1_1", json!(3)),
            ("00", json!(0)),
            ("-0", json!(0)),
            // No octal digits: a decimal number after all.
            ("08", json!(8)),
            ("0999", json!(999)),
            ("1__000", json!(1000)),
            ("1_", json!(1)),
            ("8080.0", json!(8080)),
            ("1.8e4", json!(18000)),
            ("1E3", json!(1000)),
            ("+12e-1", json!(1.2)),
            ("-0.0", json!(0)),
            ("5.", json!(5)),
            (".5", json!(0.5)),
            ("-.5e1", json!(-5)),
            ("1_0.5", json!(10.5)),
            ("1e19", json!(10_000_000_000_000_000_000u64)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("99999999999999999999", json!(1e20)),
            ("+9223372036854775808", json!(9_223_372_036_854_775_808u64)),
        ] {
            assert_eq!(value(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_number_is_a_text_and_what_has_no_end_is_nothing() {
        for text in [
            "0x",
            "0x1G",
            "0b2",
            "0o8",
            "1e",
            "1e+",
            ".",
            "-",
            "+",
            "--1",
            "+-1",
            "0x-1",
            "._5",
            ".5_0",
            "1.2.3",
            "12:30",
            "1:30:15",
            "2001-01-01",
            "1e999",
            "_1",
            "1Gi",
            "100m",
            "inf",
            "nan",
            "0x1p4",
            "1,000",
            "0xFFFFFFFFFFFFFFFFF",
        ] {
            assert_eq!(plain(text), Scalar::Text(text));
        }
        for text in [".inf", "-.INF", "+.Inf", ".NaN"] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn words_have_the_spellings_of_go_and_no_others() {
        for (text, expected) in [("y", true), ("Yes", true), ("ON", true), ("n", false), ("No", false), ("OFF", false)]
        {
            assert_eq!(plain(text), Scalar::Bool(expected));
        }
        for text in ["yEs", "oN", "tRUE", "nULL", "<<", "=", "none", "nil", "t", "f"] {
            assert_eq!(plain(text), Scalar::Text(text));
        }
        assert_eq!(["", "~", "NULL"].map(plain), [Scalar::Null; 3]);
    }

    #[test]
    fn a_key_is_written_as_go_writes_it() {
        for (text, expected) in [
            ("8080", "8080"),
            ("0x10", "16"),
            ("1.5", "1.5"),
            ("1.0", "1"),
            ("123456.0", "123456"),
            ("1234567.0", "1.234567e+06"),
            ("1e6", "1e+06"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("16777217.0", "1.6777216e+07"),
            ("yes", "true"),
            ("Off", "false"),
            ("2001-01-01", "2001-01-01"),
            (".inf", ".inf"),
        ] {
            assert_eq!(plain(text).key().as_deref(), Some(expected), "{text}");
        }
        assert_eq!(plain("~").key(), None);
    }

    #[test]
    fn a_tag_decides_or_is_refused() {
        assert_eq!(tagged("str", "80"), Some(Scalar::Text("80")));
        assert_eq!(tagged("int", "0x10"), Some(Scalar::Int(16)));
        assert_eq!(tagged("bool", "yes"), Some(Scalar::Bool(true)));
        assert_eq!(tagged("null", ""), Some(Scalar::Null));
        assert_eq!(tagged("float", "3"), Some(Scalar::Int(3)));
        assert_eq!(tagged("own", "3"), Some(Scalar::Text("3")));
        for (suffix, text) in [("int", "1.5"), ("bool", "x"), ("null", "x"), ("float", "x"), ("int", "")] {
            assert_eq!(tagged(suffix, text), None, "!!{suffix} {text}");
        }
    }
}
