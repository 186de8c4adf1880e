//! Flags as a kubelet's `/flagz` shows them: by the `String` of Go's `pflag`, and of the types of its own.

use std::collections::BTreeMap;
use std::fmt;

use super::flag_value::{Given, Kind};
use crate::config::GoDuration;

/// What stands for a value that may be a password.
const MASKED: &str = "CLASSIFIED";

/// The value of a flag, of which some are made of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// What was given last.
    One(String),
    /// Everything that was given.
    List(Vec<String>),
    /// The last value of every name.
    Pairs(BTreeMap<String, String>),
}

impl Default for Shown {
    fn default() -> Self {
        Self::One(String::new())
    }
}

impl Shown {
    /// Takes in what is given.
    pub(super) fn add(&mut self, kind: Kind, given: &Given) {
        match (kind, given) {
            (Kind::Secret | Kind::Headers, _) => *self = Self::One(MASKED.to_owned()),
            (Kind::List, _) => {
                let mut all = if let Self::List(before) = self { std::mem::take(before) } else { vec![] };
                all.extend(given.clone().list());
                *self = Self::List(all);
            }
            (Kind::Map | Kind::Labels | Kind::Gates, _) => {
                let mut all = if let Self::Pairs(before) = self { std::mem::take(before) } else { BTreeMap::new() };
                let text = given.clone().text().unwrap_or_default();
                all.extend(text.split(',').filter(|part| !part.is_empty()).map(pair));
                *self = Self::Pairs(all);
            }
            (_, Given::Bool(value)) => *self = Self::One(value.to_string()),
            (_, Given::Number(value)) => *self = Self::One(value.to_string()),
            (Kind::Duration, Given::Text(text)) => {
                *self = Self::One(text.parse().map_or(text.clone(), |duration: GoDuration| duration.to_string()));
            }
            (_, Given::Text(text)) => *self = Self::One(text.clone()),
            (_, _) => *self = Self::default(),
        }
    }
}

fn pair(part: &str) -> (String, String) {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    (name.trim().to_owned(), value.trim().to_owned())
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(text) => f.write_str(text),
            Self::List(texts) => write!(f, "[{}]", texts.join(",")),
            Self::Pairs(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}
