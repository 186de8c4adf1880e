//! kubeadm's whole command line against ours: what the table says of each command and flag is what the binary has, and
//! docs/kubeadm-commands.md says the same.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::CommandFactory;
use table::{Is, Row, TABLE};

/// What there is of a command: the flags it takes, or nothing.
fn flags_of(words: &str) -> Option<BTreeSet<String>> {
    let mut command = kubeboot::cli::Cli::command();
    command.build();
    let mut command = &command;
    let mut rest: Vec<&str> = words.split_whitespace().collect();
    let mut flags = flags(command);
    while let Some(below) =
        rest.first().and_then(|word| command.find_subcommand(word)).filter(|below| !below.is_hide_set())
    {
        command = below;
        flags.extend(self::flags(command));
        rest.remove(0);
    }
    let found = match rest.as_slice() {
        [] => true,
        words => phases(command).contains(&words.join("/")) || values(command).contains(&words.join("/")),
    };
    found.then_some(flags)
}

fn flags(command: &clap::Command) -> BTreeSet<String> {
    let long = command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned));
    let aliases = command.get_arguments().flat_map(|arg| arg.get_all_aliases().unwrap_or_default());
    long.chain(aliases.into_iter().map(str::to_owned)).collect()
}

/// The values that the positional argument of a command takes.
fn values(command: &clap::Command) -> BTreeSet<String> {
    let all = command.get_positionals().flat_map(|arg| arg.get_possible_values());
    all.map(|value| value.get_name().to_owned()).collect()
}

/// The phases that the help of a command lists, `group/child` and `group/all` too.
fn phases(command: &clap::Command) -> BTreeSet<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut group = String::new();
    for line in help.lines().skip_while(|line| *line != "Phases:").skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap_or_default();
        if line.starts_with("    ") {
            names.extend([format!("{group}/{name}"), format!("{group}/all")]);
        } else {
            group = name.to_owned();
            names.insert(group.clone());
        }
    }
    names
}

/// What a row says of one of its flags.
fn said(row: &Row, flag: &str) -> Is {
    row.apart.iter().find(|(name, _)| *name == flag).map_or(Is::Same, |(_, is)| *is)
}

#[test]
fn each_command_and_flag_is_what_the_table_says() {
    let mut wrong = Vec::new();
    for row in TABLE {
        let there = flags_of(row.command);
        let missing = matches!(row.is, Is::Missing(_));
        if there.is_none() != missing {
            wrong.push(format!("`{}` is {}", row.command, if missing { "there" } else { "not there" }));
        }
        let Some(there) = there.filter(|_| !missing) else { continue };
        for flag in row.flags.split_whitespace() {
            let missing = matches!(said(row, flag), Is::Missing(_));
            if there.contains(flag) == missing {
                let is = if missing { "there" } else { "not there" };
                wrong.push(format!("`{} --{flag}` is {is}", row.command));
            }
        }
    }
    assert!(wrong.is_empty(), "tests/kubeadm_cli/table.rs says otherwise:\n  {}", wrong.join("\n  "));
}

#[test]
fn the_table_names_each_command_once_and_no_flag_apart_that_no_row_has() {
    let commands: BTreeSet<&str> = TABLE.iter().map(|row| row.command).collect();
    assert_eq!(commands.len(), TABLE.len());
    for row in TABLE {
        for (flag, _) in row.apart {
            let users: Vec<&Row> = TABLE.iter().filter(|other| std::ptr::eq(other.apart, row.apart)).collect();
            let used = users.iter().any(|row| row.flags.split_whitespace().any(|name| name == *flag));
            assert!(used, "{} has no --{flag}", row.command);
        }
    }
}

#[test]
fn the_document_says_what_the_table_says() {
    kubeboot::testing::golden::assert_generated("docs/kubeadm-commands.md", &document());
}

fn document() -> String {
    let mut text = String::from(
        "# kubeadm's commands and flags\n\nEvery command and flag of kubeadm 1.36, and what it is in kubeboot: *same* (name, \
         meaning and output), *better* (the same name, and more), or *missing*, with the reason. A test compares this \
         table with the binary.\n\n| kubeadm | kubeboot | flags |\n|---|---|---|\n",
    );
    let mut count = [0; 3];
    for row in TABLE {
        let mut apart = Vec::new();
        let (mut same, mut flags) = (0, 0);
        for flag in row.flags.split_whitespace() {
            let is = if matches!(row.is, Is::Missing(_)) { row.is } else { said(row, flag) };
            count[place(is)] += 1;
            flags += 1;
            match is {
                Is::Same => same += 1,
                Is::Better(how) => apart.push(format!("`--{flag}` better: {how}")),
                Is::Missing(_) if matches!(row.is, Is::Missing(_)) => {}
                Is::Missing(why) => apart.push(format!("`--{flag}` missing: {why}")),
            }
        }
        let command = if row.command.is_empty() { "(every command)" } else { row.command };
        let is = match row.is {
            Is::Same => "same".to_owned(),
            Is::Better(how) => format!("better: {how}"),
            Is::Missing(why) => format!("missing: {why}"),
        };
        count[place(row.is)] += usize::from(!row.command.is_empty());
        let summary = match (flags, same) {
            (0, _) => "none".to_owned(),
            _ if matches!(row.is, Is::Missing(_)) => String::new(),
            (all, same) if all == same => format!("all {all} same"),
            (all, same) => format!("{same} of {all} same; {}", apart.join("; ")),
        };
        writeln!(text, "| `{command}` | {is} | {summary} |").unwrap();
    }
    let [same, better, missing] = count;
    writeln!(text, "\nCommands and flags together: {same} same, {better} better, {missing} missing.").unwrap();
    text
}

fn place(is: Is) -> usize {
    match is {
        Is::Same => 0,
        Is::Better(_) => 1,
        Is::Missing(_) => 2,
    }
}
