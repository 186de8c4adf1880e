//! Every option of a kubelet, a row each: its flag, its field of a `KubeletConfiguration`, its type, its defaults, how it is
//! set and what is printed of it, and whether it means anything to this agent.
//!
//! A new option is a row here and a field of [`super::AgentOptions`]. One that is resolved together with others is
//! [`Setting::Joint`]: it has a field of [`super::Flags`] or of the `KubeletConfiguration` as well, and is put together in
//! `follow`.

mod ignored;
mod node;
mod pods;
mod print;
mod row;
mod server;
mod set;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::flag_value::Kind;
use row::global;
pub use row::{Field, Flag, Help, Lens, Meaning, OptionRow, Setting};

/// The options below one heading of the help.
pub struct Section {
    /// The heading; None for that of all options.
    pub heading: Option<&'static str>,
    /// They themselves, in the order of the help.
    pub rows: &'static [OptionRow],
}

/// Every option that means something, in the order of the help.
pub static SECTIONS: &[Section] = &[
    Section { heading: None, rows: pods::ROWS },
    Section { heading: Some("kubeboot's own options"), rows: pods::OWN },
    Section { heading: Some("Cluster options"), rows: node::ROWS },
    Section { heading: Some("API options"), rows: server::ROWS },
];

/// Flags of every command.
static GLOBAL: &[OptionRow] =
    &[global("help", Kind::Bool, "false"), global("v", Kind::Level, "0"), global("vmodule", Kind::Text, "")];

/// Every option.
pub fn all() -> impl Iterator<Item = &'static OptionRow> {
    SECTIONS.iter().flat_map(|section| section.rows).chain(GLOBAL).chain(ignored::rows())
}

/// Every option that has a flag, with it.
pub fn flags() -> impl Iterator<Item = (&'static Flag, &'static OptionRow)> {
    all().filter_map(|row| Some((row.flag.as_ref()?, row)))
}

/// Every option that has a field, with it.
pub fn fields() -> impl Iterator<Item = (&'static Field, &'static OptionRow)> {
    all().filter_map(|row| Some((row.field.as_ref()?, row)))
}

/// The option with this flag.
pub fn of_flag(name: &str) -> Option<&'static OptionRow> {
    flags().find(|(flag, _)| flag.name == name).map(|(_, row)| row)
}

/// The option with this field.
pub fn of_field(name: &str) -> Option<&'static OptionRow> {
    fields().find(|(field, _)| field.name == name).map(|(_, row)| row)
}

/// The fields that are paths.
pub fn path_fields() -> impl Iterator<Item = &'static str> {
    fields().filter(|(field, _)| field.is_path).map(|(field, _)| field.name)
}

/// Whether a field is one of the type and means nothing here.
pub fn is_ignored(name: &str) -> bool {
    of_field(name).is_some_and(|row| matches!(row.meaning, Meaning::Ignored(_)))
}

/// The fields of a file that mean something, by the names that stand at its top.
pub fn followed_fields() -> &'static [&'static str] {
    static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let followed = fields().filter(|(_, row)| matches!(row.meaning, Meaning::Followed(_)));
        let names = followed.filter_map(|(field, _)| field.name.split('.').next());
        let mut names: Vec<&str> = ["apiVersion", "kind"].into_iter().chain(names).collect();
        names.dedup();
        names
    });
    &NAMES
}

/// Every flag of a kubelet with its value: the one that was given, else the default. One of an older kubelet is there if it
/// was given.
pub fn flag_values(given: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let given = given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    flags().filter_map(|(flag, _)| Some((flag.name, flag.default?))).chain(given).collect()
}

#[cfg(test)]
mod tests;
