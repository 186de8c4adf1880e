//! Values of flags as the kubelet reads them: by Go's `pflag` and `strconv`, and by the types of its own
//! (`component-base/cli/flag`, `kubernetes/pkg/util/flag`).

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::agent::pod::resources;
use crate::config::GoDuration;

/// How the value of a flag is read. What may be empty then means that the flag is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--x` or `--x=false`, in every spelling of `strconv.ParseBool`.
    Bool,
    /// A number of 32 bits, in any base that Go writes numbers in.
    Int,
    /// A number of 64 bits.
    Int64,
    /// A number from 0 to 65535.
    Port,
    /// A decimal number: the level of a log.
    Level,
    /// `1m30s`; it is handed on as it was written.
    Duration,
    /// An address; may be empty.
    Ip,
    /// Anything; may be empty.
    Text,
    /// The same, as the path of a file or directory.
    Path,
    /// Anything, and perhaps a secret: no message shows it.
    Secret,
    /// Texts between commas, in quotes where they hold some; may be empty.
    List,
    /// `name=value,name2=value2`; may be empty.
    Map,
    /// `name=value`, whatever is in the value.
    Pair,
    /// As [`Kind::Map`], and the values may be missing.
    Labels,
    /// As [`Kind::Map`], and the values are booleans.
    Gates,
    /// `name<value,name2<value2`; may be empty.
    Thresholds,
    /// `name:value,name2:value2`, perhaps with secrets; may be empty.
    Headers,
    /// `key=value:effect,...`; may be empty, and the last of several counts.
    Taints,
    /// `0:memory=1Gi,hugepages-1M=2Gi;1:...`; may be empty.
    Memory,
    /// `10Mi`.
    Quantity,
    /// `--version`, `--version=raw`, `--version=v1.36.2`.
    Version,
    /// A map of fields, which no flag can say.
    Object,
}

/// The value of a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Empty: as if the flag were not given.
    Nothing,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(i64),
    /// Anything else, as it was written.
    Text(String),
    /// The texts of a list.
    List(Vec<String>),
}

impl Given {
    pub(super) fn boolean(self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(value) } else { None }
    }

    pub(super) fn number(self) -> Option<i64> {
        if let Self::Number(value) = self { Some(value) } else { None }
    }

    pub(super) fn port(self) -> Option<u16> {
        self.number().and_then(|number| u16::try_from(number).ok())
    }

    pub(super) fn text(self) -> Option<String> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    pub(super) fn list(self) -> Vec<String> {
        match self {
            Self::List(texts) => texts,
            Self::Text(text) => vec![text],
            _ => vec![],
        }
    }
}

impl Kind {
    /// Whether the flag may stand without a value, which then is `true`.
    pub fn is_switch(self) -> bool {
        matches!(self, Self::Bool | Self::Version)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// What is wrong with it, in words. No message shows what may be a secret.
    pub fn read(self, text: &str) -> Result<Given, String> {
        let given = |()| Given::Text(text.to_owned());
        match self {
            Self::Bool => boolean(text).map(Given::Bool),
            Self::Int => integer(text, 32).map(Given::Number),
            Self::Int64 => integer(text, 64).map(Given::Number),
            Self::Port => port(text).map(Given::Number),
            Self::Level => level(text).map(Given::Number),
            Self::Duration => text.parse::<GoDuration>().map(|_| given(())).map_err(|error| error.to_string()),
            Self::Quantity => quantity(text).map(given),
            Self::Pair => pair(text, '=').map(given),
            Self::Version => version(text).map(given),
            _ if text.is_empty() => Ok(Given::Nothing),
            Self::Text | Self::Path | Self::Secret | Self::Labels | Self::Taints | Self::Object => Ok(given(())),
            Self::Ip => address(text).map(|address| Given::Text(address.to_string())),
            Self::List => list(text).map(Given::List),
            Self::Map => parts(text).try_for_each(|part| pair(part, '=')).map(given),
            Self::Gates => parts(text).try_for_each(gate).map(given),
            Self::Thresholds => parts(text).try_for_each(|part| pair(part, '<')).map(given),
            Self::Headers => {
                let fault = "every header must be written as name:value".to_owned();
                parts(text).try_for_each(|part| pair(part, ':').map_err(|_| fault.clone())).map(given)
            }
            Self::Memory => memory(text).map(given),
        }
    }
}

/// As `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// As `strconv.ParseInt` with base 0: `0x`, `0o`, `0b` and a leading zero choose the base, and `_` may stand between digits.
fn integer(text: &str, bits: u32) -> Result<i64, String> {
    let fault = || format!("{text:?} is no whole number");
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let with = |prefix: &str, base: u32| lower.strip_prefix(prefix).map(|rest| (rest.to_owned(), base, true));
    let (rest, base, prefixed) = with("0x", 16)
        .or_else(|| with("0o", 8))
        .or_else(|| with("0b", 2))
        .or_else(|| with("0", 8).filter(|(rest, ..)| !rest.is_empty()))
        .unwrap_or((lower.clone(), 10, false));
    // An underscore stands between digits, or between the prefix and the first of them.
    let bare = if prefixed { rest.strip_prefix('_').unwrap_or(&rest) } else { &rest };
    let underscored = bare.starts_with('_') || bare.ends_with('_') || bare.contains("__");
    if bare.is_empty() || underscored {
        return Err(fault());
    }
    let plain = bare.replace('_', "");
    if plain.starts_with(['+', '-']) {
        return Err(fault());
    }
    let number = i128::from_str_radix(&plain, base).map_err(|_| fault())?;
    let number = if negative { number.checked_neg().ok_or_else(fault)? } else { number };
    let number = i64::try_from(number).map_err(|_| format!("{text} is more than {bits} bits hold"))?;
    match bits {
        32 if i32::try_from(number).is_err() => Err(format!("{text} is more than 32 bits hold")),
        _ => Ok(number),
    }
}

fn port(text: &str) -> Result<i64, String> {
    let number = integer(text, 32)?;
    u16::try_from(number).map(i64::from).map_err(|_| format!("{number} is no port: they go from 0 to 65535"))
}

fn level(text: &str) -> Result<i64, String> {
    text.parse::<i32>().map(i64::from).map_err(|_| format!("{text:?} is no whole number"))
}

fn quantity(text: &str) -> Result<(), String> {
    let found = resources::bytes(&Quantity(text.to_owned()));
    found.map(|_| ()).ok_or_else(|| format!("{text:?} is no quantity; write it as 10Mi"))
}

/// An address as Go's older parsers read it: IPv4 with zeros before its numbers too.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let sloppy = || {
        let octets: Vec<u8> = text.split('.').map(decimal).collect::<Option<_>>()?;
        <[u8; 4]>::try_from(octets).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)))
    };
    text.parse().ok().or_else(sloppy).ok_or_else(|| format!("{text:?} is no IP address"))
}

fn decimal(part: &str) -> Option<u8> {
    let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| part.parse().ok())?
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|part| !part.is_empty())
}

fn pair(text: &str, between: char) -> Result<(), String> {
    let fault = || format!("{text:?} must be written as name{between}value");
    text.split_once(between).map(|_| ()).ok_or_else(fault)
}

fn gate(text: &str) -> Result<(), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} must be written as Name=true"))?;
    boolean(value.trim()).map(|_| ()).map_err(|problem| format!("{}: {problem}", name.trim()))
}

fn version(text: &str) -> Result<(), String> {
    if text == "raw" || text.starts_with('v') { Ok(()) } else { boolean(text).map(|_| ()) }
}

/// `node:type=quantity,...;...`, as `--reserved-memory` has it.
fn memory(text: &str) -> Result<(), String> {
    let fault = |part: &str| format!("{part:?} must be written as NODE:memory=1Gi,hugepages-2Mi=1Gi");
    text.split(';').try_for_each(|part| {
        let (node, types) = part.split_once(':').ok_or_else(|| fault(part))?;
        node.parse::<i64>().map_err(|_| fault(part))?;
        types.split(',').try_for_each(|of| {
            let (name, amount) = of.split_once('=').ok_or_else(|| fault(part))?;
            let is_known = name == "memory" || name.starts_with("hugepages-");
            if is_known { quantity(amount) } else { Err(fault(part)) }
        })
    })
}

/// One record of `encoding/csv`: a field that begins with a quote ends with one, and two stand for one within.
pub(super) fn list(text: &str) -> Result<Vec<String>, String> {
    let fault = || format!("{text:?} has quotes that do not match");
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted).ok_or_else(fault)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if !rest.starts_with('"') && field.contains('"') {
            return Err(fault());
        }
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(fault()),
        }
    }
}

/// What stands up to the closing quote, and what comes behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(kind: Kind, text: &str) -> Result<Given, String> {
        kind.read(text)
    }

    #[test]
    fn booleans_are_spelt_as_go_spells_them_and_in_no_other_way() {
        for (value, spellings) in
            [(true, ["1", "t", "T", "true", "TRUE", "True"]), (false, ["0", "f", "F", "false", "FALSE", "False"])]
        {
            for text in spellings {
                assert_eq!(reads(Kind::Bool, text), Ok(Given::Bool(value)), "{text}");
            }
        }
        for text in ["", "yes", "no", "on", "tRUE", " true", "2"] {
            assert!(reads(Kind::Bool, text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_read_in_every_base_that_go_writes_them_in() {
        for (text, number) in [
            ("0", 0),
            ("40", 40),
            ("-1", -1),
            ("+7", 7),
            ("0x28", 40),
            ("0X28", 40),
            ("-0x1", -1),
            ("0o50", 40),
            ("050", 40),
            ("0b101", 5),
            ("1_000", 1000),
            ("0x_28", 40),
            ("0_5", 5),
            ("2147483647", i64::from(i32::MAX)),
            ("-2147483648", i64::from(i32::MIN)),
        ] {
            assert_eq!(reads(Kind::Int, text), Ok(Given::Number(number)), "{text}");
        }
        for text in ["", " 1", "1 ", "1.0", "1e3", "0x", "08", "_1", "1_", "1__0", "--1", "0x-1", "2147483648", "1,000"]
        {
            assert!(reads(Kind::Int, text).is_err(), "{text:?}");
        }
        assert_eq!(reads(Kind::Int64, "0x7fffffffffffffff"), Ok(Given::Number(i64::MAX)));
        assert_eq!(reads(Kind::Int64, "-9223372036854775808"), Ok(Given::Number(i64::MIN)));
        assert!(reads(Kind::Int64, "9223372036854775808").is_err());
        assert!(reads(Kind::Port, "65536").is_err() && reads(Kind::Port, "-1").is_err());
        assert!(reads(Kind::Level, "0x1").is_err() && reads(Kind::Level, "-1").is_ok());
    }

    #[test]
    fn lists_are_lines_of_csv() {
        for (text, expected) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            ("a,,b,", &["a", "", "b", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            (" a", &[" a"]),
        ] {
            let expected = expected.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(reads(Kind::List, text), Ok(Given::List(expected)), "{text}");
        }
        for text in ["\"a", "a\"b", "\"a\"b"] {
            assert!(reads(Kind::List, text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_other_kind_is_read_as_the_kubelet_reads_it() {
        for (kind, good, bad) in [
            (Kind::Duration, &["0", "1m30s", "-5s", ".5h"][..], &["", "5", "1d"][..]),
            (Kind::Ip, &["10.0.0.1", "010.0.0.1", "fd00::1", ""], &["10.0.0", "lo", "10.0.0.256"]),
            (Kind::Map, &["", "a=b", "a=b,c=d=e,", "a="], &["a", "a=b,c"]),
            (Kind::Pair, &["a=b", "a=b,c", "a="], &["", "a"]),
            (Kind::Labels, &["", "a", "a=b,c"], &[]),
            (Kind::Gates, &["", "A=true", "A=t,B=0", "A= false"], &["A", "A=maybe", "A="]),
            (Kind::Thresholds, &["", "a<5%,b<1Gi"], &["a=5%", "a"]),
            (Kind::Headers, &["", "a:b,c:d:e"], &["a"]),
            (
                Kind::Memory,
                &["", "0:memory=1Gi", "0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=1"],
                &["memory=1", "0:cpu=1"],
            ),
            (Kind::Quantity, &["0", "1Mi", "-1"], &["", "lots"]),
            (Kind::Version, &["true", "raw", "v1.36.0", "False"], &["", "yes"]),
            (Kind::Text, &["", "=", "-x"], &[]),
        ] {
            for text in good {
                assert!(reads(kind, text).is_ok(), "{kind:?} {text:?}: {:?}", reads(kind, text));
            }
            for text in bad {
                assert!(reads(kind, text).is_err(), "{kind:?} {text:?}");
            }
        }
        let secret = reads(Kind::Headers, "hunter2").unwrap_err();
        assert!(!secret.contains("hunter2"), "{secret}");
    }
}
