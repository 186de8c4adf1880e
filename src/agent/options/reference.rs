//! The options in words: the part of docs/configuration.md that is about the agent, out of the table.

use super::flag_value::Kind;
use super::gates;
use super::table::{self, Meaning, OptionRow, SECTIONS};

const INTRODUCTION: &str = "
## The agent

`kubeboot agent` takes the flags of a kubelet and its `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`). A flag goes over
the field of the same option, a field over the default. A flag without a field is given on the command line alone, a field
without a flag in the file alone.

| Flag | Field | Type | Default | Meaning |
|---|---|---|---|---|
";

/// What the agent takes, in Markdown: what is followed, and what is accepted and means nothing.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    for row in SECTIONS.iter().flat_map(|section| section.rows) {
        text.push_str(&line(row));
    }
    let known: Vec<String> = gates::GATES.iter().map(|(name, ..)| format!("`{name}`")).collect();
    text.push_str(&format!("\nOf the feature gates, these are followed: {}.\n", known.join(", ")));
    text.push_str(
        "\nThese are accepted as well, and mean nothing: one line of the log names those that are given. Flags in italics are of \
         kubelets\nbefore 1.36.\n\n| Why | Flags | Fields |\n|---|---|---|\n",
    );
    for (why, rows) in by_reason() {
        let flags = rows.iter().filter_map(|row| row.flag);
        let flags = flags.map(|flag| match flag.default {
            Some(_) => format!("`--{}`", flag.name),
            None => format!("*`--{}`*", flag.name),
        });
        let fields = rows.iter().filter_map(|row| row.field).map(|field| format!("`{}`", field.name));
        let (flags, fields): (Vec<_>, Vec<_>) = (flags.collect(), fields.collect());
        text.push_str(&format!("| {why} | {} | {} |\n", flags.join(", "), fields.join(", ")));
    }
    text
}

/// The options that mean nothing, by the reason, in the order of the table.
fn by_reason() -> Vec<(&'static str, Vec<&'static OptionRow>)> {
    let mut groups: Vec<(&str, Vec<&OptionRow>)> = Vec::new();
    for row in table::all() {
        let Meaning::Ignored(why) = row.meaning else { continue };
        match groups.last_mut().filter(|(last, _)| *last == why) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((why, vec![row])),
        }
    }
    groups
}

fn line(row: &OptionRow) -> String {
    let code = |text: String| if text.is_empty() { text } else { format!("`{text}`") };
    let flag = code(row.flag.map(|flag| format!("--{}", flag.name)).unwrap_or_default());
    let field = code(row.field.map(|field| field.name.to_owned()).unwrap_or_default());
    format!("| {flag} | {field} | {} | {} | {} |\n", type_name(row.kind), default(row), row.about.replace('|', "\\|"))
}

/// The default: in the words of the help, else as a kubelet takes it.
fn default(row: &OptionRow) -> String {
    let says_something = |text: &&str| !["", "[]", "null"].contains(text);
    let words = row.flag.and_then(|flag| flag.help?.otherwise).filter(says_something);
    let flag = row.flag.and_then(|flag| flag.default).filter(says_something);
    let field = row.field.map(|field| field.default.trim_matches('"')).filter(says_something);
    match (words, flag.or(field)) {
        (Some(words), _) => words.to_owned(),
        (None, Some(value)) => format!("`{value}`"),
        (None, None) => String::new(),
    }
}

fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool | Kind::Version => "boolean",
        Kind::Int | Kind::Int64 | Kind::Port | Kind::Level => "integer",
        Kind::Duration => "duration",
        Kind::Ip => "address",
        Kind::Path => "path",
        Kind::List => "list of string",
        Kind::Taints => "list of taints",
        Kind::Map | Kind::Labels | Kind::Thresholds | Kind::Headers => "map of string",
        Kind::Gates => "map of boolean",
        Kind::Quantity => "quantity",
        Kind::Text | Kind::Secret | Kind::Pair | Kind::Memory => "string",
        Kind::Object => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_flags_and_fields_in_one_line_and_what_means_nothing_with_the_reason() {
        let text = markdown();
        for line in [
            "| `--sync-frequency` | `syncFrequency` | duration | `1m0s` | How often every pod is looked at whatever its events say |",
            "| `--cert-dir` |  | path | pki in the root directory | Directory of certificates that the cluster has signed |",
            "|  | `containerLogMonitorInterval` | duration | `10s` | How often logs are looked at where the agent rotates them; 3s or more |",
            "| nothing is evicted | `--eviction-max-pod-grace-period`,",
            "*`--cni-bin-dir`*",
            "`PodsAPI`",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_option_that_is_followed_is_described() {
        for row in SECTIONS.iter().flat_map(|section| section.rows) {
            assert!(!row.about.is_empty(), "{}", row.name());
        }
    }
}
