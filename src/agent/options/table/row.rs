//! A row of the table, and how rows are written.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::agent::options::agent_options::AgentOptions;
use crate::agent::options::flag_value::{Given, Kind};
use crate::agent::options::given::Flags;

/// One option.
#[derive(Clone, Copy)]
pub struct OptionRow {
    /// How the flag's value is read, and of what type the field is.
    pub kind: Kind,
    /// Its flag.
    pub flag: Option<Flag>,
    /// Its field of a `KubeletConfiguration`.
    pub field: Option<Field>,
    /// What it means to this agent.
    pub meaning: Meaning,
    /// What it does, in words; empty for one that means nothing.
    pub about: &'static str,
}

/// The flag of an option.
#[derive(Clone, Copy)]
pub struct Flag {
    /// Its name, without dashes before it.
    pub name: &'static str,
    /// What `/flagz` of Kubernetes 1.36 shows where it is not given, with this agent's own values for what is followed; None
    /// for a flag that kubelets had before.
    pub default: Option<&'static str>,
    /// How the help shows it; None for a flag that is not shown.
    pub help: Option<Help>,
}

/// A flag in the help.
#[derive(Clone, Copy)]
pub struct Help {
    /// What stands for the value.
    pub value: &'static str,
    /// What is taken where it is not given, in words, where the default does not say it; empty to say nothing.
    pub otherwise: Option<&'static str>,
}

/// The field of an option.
#[derive(Clone, Copy)]
pub struct Field {
    /// Its name, with the names of the fields it is in: `authentication.anonymous.enabled`.
    pub name: &'static str,
    /// What a kubelet of 1.36 takes where nothing is written, as JSON; `null` for a field that it then leaves out.
    pub default: &'static str,
    /// Whether it is a path: a relative one is relative to the file it is written in.
    pub is_path: bool,
    /// Whether a number 0 stands for the default; to other options it is an answer of its own.
    pub zero_is_default: bool,
}

/// What an option means to this agent.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// It is followed.
    Followed(Setting),
    /// Its flag is one of every command of this program, which reads it.
    Global,
    /// It is accepted, because files and units carry it, and named in one log line. It means nothing for this reason.
    Ignored(&'static str),
}

/// The place of a value in something.
pub type Lens<W, T> = fn(&mut W) -> &mut T;

/// How a followed option gets into [`AgentOptions`], and what `/configz` says of it. Where a flag and a field are one option,
/// the flag goes over the field.
#[derive(Clone, Copy)]
pub enum Setting {
    /// A duration that is not negative, and no shorter than the second one; 0 stands for the default.
    Duration(Lens<AgentOptions, Duration>, Duration),
    /// A switch. One whose field is left out by default is printed where it is on.
    Bool(Lens<AgentOptions, bool>),
    /// A number, checked as it is set.
    Number(fn(&mut AgentOptions, i64) -> Result<(), String>, fn(&AgentOptions) -> Value),
    /// A text, checked as it is set; an empty one says nothing.
    Text(fn(&mut AgentOptions, &str) -> Result<(), String>, fn(&AgentOptions) -> Value),
    /// Texts, each checked.
    Texts(Lens<AgentOptions, Vec<String>>, fn(&str) -> Result<String, String>),
    /// A path that is resolved together with other options; the place is that of the flag.
    Path(Lens<Flags, Option<PathBuf>>, fn(&AgentOptions) -> Value),
    /// Anything else that is resolved together with other options: how the flag is taken in.
    Joint(fn(&mut Flags, Given), fn(&AgentOptions) -> Value),
}

/// A duration of Go without what is zero at its end: `1m0s` is `1m`.
fn brief(text: &str) -> &str {
    let minutes = text.strip_suffix("0s").filter(|rest| rest.ends_with('m')).unwrap_or(text);
    minutes.strip_suffix("0m").filter(|rest| rest.ends_with('h')).unwrap_or(minutes)
}

impl OptionRow {
    /// The name it goes by: of its flag, else of its field.
    pub fn name(&self) -> &'static str {
        self.flag.map(|flag| flag.name).or(self.field.map(|field| field.name)).unwrap_or_default()
    }

    /// Its line of the help: what it does, and what is taken where it is not given.
    pub fn help_line(&self) -> String {
        let words = self.flag.and_then(|flag| flag.help?.otherwise.or(flag.default.map(brief)));
        match words {
            None | Some("" | "[]") => self.about.to_owned(),
            Some(words) => format!("{} [default: {words}]", self.about),
        }
    }

    /// How it is set, if it is followed.
    pub fn setting(&self) -> Option<&Setting> {
        if let Meaning::Followed(setting) = &self.meaning { Some(setting) } else { None }
    }

    /// How a message names it where the flag is wrong.
    pub fn dashed(&self) -> String {
        format!("--{}", self.name())
    }

    pub(super) const fn followed(kind: Kind, setting: Setting) -> Self {
        Self { kind, flag: None, field: None, meaning: Meaning::Followed(setting), about: "" }
    }

    pub(super) const fn flag(self, name: &'static str, default: &'static str) -> Self {
        Self { flag: Some(Flag { name, default: Some(default), help: None }), ..self }
    }

    /// A flag that only kubelets of before have.
    pub(super) const fn old_flag(self, name: &'static str) -> Self {
        Self { flag: Some(Flag { name, default: None, help: None }), ..self }
    }

    pub(super) const fn help(self, value: &'static str, about: &'static str) -> Self {
        match self.flag {
            Some(flag) => {
                let help = Help { value, otherwise: None };
                Self { flag: Some(Flag { help: Some(help), ..flag }), about, ..self }
            }
            None => self,
        }
    }

    /// What an option without a flag does.
    pub(super) const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// What is taken where nothing is given, in words.
    pub(super) const fn otherwise(self, words: &'static str) -> Self {
        match self.flag {
            Some(Flag { help: Some(help), name, default }) => {
                let help = Help { otherwise: Some(words), ..help };
                Self { flag: Some(Flag { name, default, help: Some(help) }), ..self }
            }
            _ => self,
        }
    }

    pub(super) const fn field(self, name: &'static str, default: &'static str) -> Self {
        Self { field: Some(Field { name, default, is_path: false, zero_is_default: false }), ..self }
    }

    /// A field that is a path.
    pub(super) const fn path_field(self, name: &'static str, default: &'static str) -> Self {
        Self { field: Some(Field { name, default, is_path: true, zero_is_default: false }), ..self }
    }

    pub(super) const fn zero_is_default(self) -> Self {
        match self.field {
            Some(field) => Self { field: Some(Field { zero_is_default: true, ..field }), ..self },
            None => self,
        }
    }
}

pub(super) const fn global(name: &'static str, kind: Kind, default: &'static str) -> OptionRow {
    OptionRow { kind, flag: None, field: None, meaning: Meaning::Global, about: "" }.flag(name, default)
}

pub(super) const fn duration(of: Lens<AgentOptions, Duration>) -> OptionRow {
    OptionRow::followed(Kind::Duration, Setting::Duration(of, Duration::ZERO))
}

pub(super) const fn switch(of: Lens<AgentOptions, bool>) -> OptionRow {
    OptionRow::followed(Kind::Bool, Setting::Bool(of))
}

pub(super) const fn number(
    kind: Kind,
    set: fn(&mut AgentOptions, i64) -> Result<(), String>,
    shown: fn(&AgentOptions) -> Value,
) -> OptionRow {
    OptionRow::followed(kind, Setting::Number(set, shown))
}

pub(super) const fn text(
    set: fn(&mut AgentOptions, &str) -> Result<(), String>,
    shown: fn(&AgentOptions) -> Value,
) -> OptionRow {
    OptionRow::followed(Kind::Text, Setting::Text(set, shown))
}

pub(super) const fn texts(of: Lens<AgentOptions, Vec<String>>, check: fn(&str) -> Result<String, String>) -> OptionRow {
    OptionRow::followed(Kind::List, Setting::Texts(of, check))
}

pub(super) const fn path(of: Lens<Flags, Option<PathBuf>>, shown: fn(&AgentOptions) -> Value) -> OptionRow {
    OptionRow::followed(Kind::Path, Setting::Path(of, shown))
}

pub(super) const fn joint(kind: Kind, set: fn(&mut Flags, Given), shown: fn(&AgentOptions) -> Value) -> OptionRow {
    OptionRow::followed(kind, Setting::Joint(set, shown))
}

/// A field without a flag that is resolved together with other options.
pub(super) const fn joint_field(kind: Kind, shown: fn(&AgentOptions) -> Value) -> OptionRow {
    joint(kind, |_, _| (), shown)
}

/// What `/configz` leaves as it is written, or has no field of.
pub(super) const AS_WRITTEN: fn(&AgentOptions) -> Value = |_| Value::Null;
