//! The program's surface: help, wrong usage, version, completion.

#![allow(clippy::unwrap_used, reason = "a test")]

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, starts_with};

fn kubeboot(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_kubeboot")).args(args).assert()
}

/// Every command that stands in the program's own help.
fn commands() -> Vec<String> {
    let output = kubeboot(&["--help"]).success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    let list = text.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn without_a_command_the_help_is_printed_and_all_is_well() {
    kubeboot(&[]).success().stdout(contains("Usage: kubeboot"));
}

#[test]
fn every_command_says_what_it_does_and_with_which_exit_codes() {
    let commands = commands();
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        kubeboot(&[&command, "--help"])
            .success()
            .stdout(contains("Usage: kubeboot").and(contains("Exit codes:")).and(contains("Examples:")))
            .stderr("");
    }
}

#[test]
fn wrong_usage_exits_1_with_one_message_on_stderr() {
    let command_flag = &["version", "--nonsense"][..];
    for (args, words) in [
        (&["--nonsense"][..], "unexpected argument '--nonsense'"),
        (command_flag, "unexpected argument '--nonsense'"),
        (&["nonsense"], "unrecognized subcommand 'nonsense'"),
        (&["version", "extra"], "unexpected argument 'extra'"),
        (&["version", "-o", "xml"], "invalid value 'xml'"),
        (&["completion"], "required arguments were not provided"),
        (&["version", "--v=loud"], "invalid value 'loud'"),
    ] {
        kubeboot(args)
            .code(1)
            .stdout("")
            .stderr(starts_with("error: ").and(contains(words)).and(contains("error:").count(1)));
    }
}

#[test]
fn the_version_is_printed_in_every_form() {
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    kubeboot(&["version"]).success().stdout(starts_with(format!("kubeboot version: {version} linux/")));
    kubeboot(&["version", "-o", "short"]).success().stdout(format!("{version}\n"));
    kubeboot(&["version", "-o", "yaml"]).success().stdout(contains(format!("  gitVersion: {version}\n")));
    let json = kubeboot(&["version", "-o=json"]).success().get_output().stdout.clone();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["clientVersion"]["gitVersion"], version);
}

#[test]
fn each_shell_gets_its_script() {
    for (shell, words) in
        [("bash", "complete -F _kubeboot"), ("zsh", "#compdef kubeboot"), ("fish", "complete -c kubeboot")]
    {
        kubeboot(&["completion", shell]).success().stdout(contains(words)).stderr("");
    }
}

#[test]
fn nothing_is_said_when_the_reader_of_stdout_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_kubeboot"))
        .args(["completion", "bash"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
