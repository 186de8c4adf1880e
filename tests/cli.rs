//! The program's surface: help, wrong usage, version, completion.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use assert_cmd::Command;
use kubeboot::testing::real::wait::{LIMIT, until};
use predicates::prelude::*;
use predicates::str::{contains, starts_with};

fn kubeboot(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_kubeboot")).args(args).assert()
}

/// The commands that the help of `command` lists.
fn commands(command: &[String]) -> Vec<Vec<String>> {
    let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let output = kubeboot(&args).success().stderr("").get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    let Some(list) = text.split("\nCommands:\n").nth(1) else { return vec![] };
    // A description that goes on in the next line is indented further.
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty());
    names.map(|name| command.iter().cloned().chain([name.to_owned()]).collect()).collect()
}

fn help(command: &[String]) -> assert_cmd::assert::Assert {
    kubeboot(&command.iter().map(String::as_str).chain(["--help"]).collect::<Vec<_>>()).success()
}

/// Arguments of an agent that has everything below `dir`, and no container runtime.
fn agent_below(dir: &Path) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    std::fs::create_dir(path("manifests")).unwrap();
    let runtime = format!("unix://{}", path("no-runtime.sock"));
    let (manifests, root, socket) = (path("manifests"), path("root"), path("agent.sock"));
    let pairs = [
        ("--pod-manifest-path", manifests.as_str()),
        ("--root-dir", &root),
        ("--control-socket", &socket),
        ("--container-runtime-endpoint", &runtime),
    ];
    let pairs = pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
    ["agent".to_owned(), "--healthz-port=0".to_owned()].into_iter().chain(pairs).collect()
}

/// Whoever starts an agent may keep his own files closed; those of pods are for the users of their containers.
#[test]
fn an_agent_has_a_umask_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = std::process::Command::new("sh")
        .args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kubeboot")])
        .args(agent_below(dir.path()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("its socket is there", LIMIT, || dir.path().join("agent.sock").exists());
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap_or_default();
    assert_eq!(umask.trim(), "0022");
}

/// What reads an agent's log (a journal that is started again, a pager) may end before the agent.
#[test]
fn an_agent_whose_log_has_no_reader_works_on_and_ends_when_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = std::process::Command::new(env!("CARGO_BIN_EXE_kubeboot"))
        .args(agent_below(dir.path()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(agent.stderr.take().unwrap()).read_line(&mut first).unwrap();
    assert!(!first.is_empty());
    kubeboot::host::fs::write_file(&dir.path().join("manifests/x.yaml"), b"kind: Nothing\n", 0o600).unwrap();
    let socket = dir.path().join("agent.sock").display().to_string();
    until("the problem that it logs is reported", LIMIT, || {
        let output =
            Command::new(env!("CARGO_BIN_EXE_kubeboot")).args(["status", "--control-socket", &socket]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).contains("x.yaml")
    });
    std::process::Command::new("kill").arg(agent.id().to_string()).status().unwrap();
    let ended = until("it ends", LIMIT, || agent.try_wait().unwrap());
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn without_a_command_the_help_is_printed_and_all_is_well() {
    kubeboot(&[]).success().stdout(contains("Usage: kubeboot"));
}

#[test]
fn every_command_gives_examples_and_its_exit_codes() {
    let top = commands(&[]);
    assert!(top.contains(&vec!["version".to_owned()]), "{top:?}");
    for command in top {
        help(&command).stdout(contains("Usage: kubeboot").and(contains("Examples:")));
        let mut rest = vec![command];
        while let Some(command) = rest.pop() {
            let children = commands(&command);
            if children.is_empty() {
                help(&command).stdout(contains("Exit codes:"));
            }
            rest.extend(children);
        }
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

#[test]
fn every_command_has_its_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    kubeboot(&["man", man.to_str().unwrap()]).success().stdout(contains("manual pages"));
    let mut rest = commands(&[]);
    assert!(!rest.is_empty());
    while let Some(command) = rest.pop() {
        let name = format!("kubeboot-{}", command.join("-"));
        let page = std::fs::read_to_string(man.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{name}");
        rest.extend(commands(&command));
    }
}

#[test]
fn what_every_kubernetes_tool_takes_is_taken() {
    kubeboot(&["version", "-o", "short", "--v=0", "--vmodule=init=5"]).success().stderr("");
    kubeboot(&["manifests", "etcd", "--node_name=a", "--cert_dir", "/x_y"]).success().stdout(contains("/x_y/etcd"));
}
