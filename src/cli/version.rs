//! `kubeboot version`.

use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

use super::Globals;
use crate::ui::{self, Output};

/// Print the version of kubeboot
///
/// Prints the version of this program. It says nothing of the cluster: see `kubeboot status` for that.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot version -o short      # v0.1.0\n  \
    kubeboot version -o json       # {\"clientVersion\": {...}}, kubeadm's shape\n\n\
    Exit codes: 0 done, 1 any error.")]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Short,
    Json,
    Yaml,
}

/// Under kubeadm's key, with kubeadm's names where the facts are the same. What the build was not told is left out, and
/// so is goVersion: there is no Go in here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    client_version: Client,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Client {
    major: &'static str,
    minor: &'static str,
    git_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    git_commit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    git_tree_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_date: Option<String>,
    compiler: &'static str,
    platform: String,
}

/// Prints the version.
pub fn run(args: Args, _: &Globals) -> anyhow::Result<ExitCode> {
    let client = Client {
        major: env!("CARGO_PKG_VERSION_MAJOR"),
        minor: env!("CARGO_PKG_VERSION_MINOR"),
        git_version: format!("v{}", env!("CARGO_PKG_VERSION")),
        git_commit: option_env!("KUBEBOOT_GIT_COMMIT"),
        git_tree_state: option_env!("KUBEBOOT_GIT_TREE_STATE"),
        build_date: option_env!("SOURCE_DATE_EPOCH").and_then(date),
        compiler: "rustc",
        platform: format!("{}/{}", std::env::consts::OS, go_arch(std::env::consts::ARCH)),
    };
    match args.output {
        None => ui::print(&format!("kubeboot version: {} {}\n", client.git_version, client.platform))?,
        Some(Format::Short) => ui::print(&format!("{}\n", client.git_version))?,
        Some(Format::Json) => ui::print_value(Output::Json, &Version { client_version: client })?,
        Some(Format::Yaml) => ui::print_value(Output::Yaml, &Version { client_version: client })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Seconds since 1970 as a date.
fn date(epoch: &str) -> Option<String> {
    jiff::Timestamp::from_second(epoch.trim().parse().ok()?).ok().map(|at| at.to_string())
}

/// Go's name of an architecture, which is what container platforms use.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_build_is_printed_as_kubeadm_prints_it() {
        assert_eq!(date("1767225600"), Some("2026-01-01T00:00:00Z".to_owned()));
        assert_eq!(date("soon"), None);
    }
}
