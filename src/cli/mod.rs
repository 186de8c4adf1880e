//! One file per command: clap types and a thin handler, no logic.
//!
//! How a command is added: a file with `pub struct Args` (derive `clap::Args`) and
//! `pub fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode>`, a variant of `Command`, an arm in
//! `dispatch`. A handler that waits for something is `async` and its arm says `block_on(...)`; the others start no
//! runtime. A flag of type `bool` also takes `=true` and `=false`, as every flag of the Kubernetes tools does; no
//! attribute is needed.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, Args as _, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::host::Paths;
use crate::ui;

mod adopt;
mod agent;
mod certs;
mod completion;
mod config;
mod etcd;
mod failure;
mod spec;
mod signals;
mod reset;
mod manifests;
mod phases;
mod man;
mod init;
mod kubeconfig;
mod join;
mod images;
mod status;
mod token;
mod upgrade;
mod version;

use failure::NO_KUBECONFIG;
pub use failure::{Hint, report};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "kubeboot",
    version,
    about = "Turns a Linux machine into a Kubernetes control-plane node",
    long_about = "Turns a Linux machine into a Kubernetes control-plane node: it writes kubeadm's files at kubeadm's \
                  paths, runs etcd and the control plane as static pods with its own agent, and waits until they are \
                  healthy. The machine needs a container runtime and nothing else.",
    after_help = "Exit codes: 0 done, 1 any error (wrong usage too). Commands with further codes list them in their \
                  own help.",
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Directory to use as the root of the file system. Only a prefix of every path: no chroot, no privilege needed.
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    pub rootfs: PathBuf,
    /// Log level on stderr: 0 warnings, 1 information, 4 debugging, 8 everything.
    #[arg(short = 'v', long = "v", global = true, value_name = "N", allow_negative_numbers = true, value_parser = level)]
    pub verbosity: Option<u8>,
    /// Levels a source file, as the Kubernetes tools take them; accepted, and -v alone counts
    #[arg(long, global = true, value_name = "PATTERN=N,...", hide = true)]
    pub vmodule: Option<String>,
}

/// A level as the Kubernetes tools take it: any number, though none below 0 and few above 10 mean something.
fn level(text: &str) -> Result<u8, std::num::ParseIntError> {
    text.parse::<i32>().map(|level| u8::try_from(level.clamp(0, 255)).unwrap_or_default())
}

impl Globals {
    /// Every path below `--rootfs`.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.rootfs)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Box<init::Args>),
    Join(Box<join::Args>),
    Reset(Box<reset::Args>),
    Adopt(adopt::Args),
    Manifests(Box<manifests::Args>),
    Images(images::Args),
    Config(config::Args),
    // Has by far the most flags.
    Agent(Box<agent::Args>),
    Status(status::Args),
    Token(token::Args),
    #[command(visible_alias = "certificates")]
    Certs(certs::Args),
    Kubeconfig(kubeconfig::Args),
    Etcd(Box<etcd::Args>),
    Upgrade(upgrade::Args),
    Version(version::Args),
    Completion(completion::Args),
    Man(man::Args),
}

impl Command {
    /// `-v` of a command that was given none.
    fn default_verbosity(&self) -> u8 {
        match self {
            Self::Init(_) | Self::Join(_) | Self::Reset(_) | Self::Manifests(_) => 0,
            Self::Images(_) | Self::Config(_) | Self::Status(_) | Self::Token(_) => 0,
            Self::Upgrade(_) | Self::Version(_) => 0,
            Self::Completion(_) | Self::Man(_) => 0,
            Self::Adopt(_) => 0,
            Self::Certs(_) | Self::Kubeconfig(_) | Self::Etcd(_) => 0,
            Self::Agent(args) if args.asks() => 0,
            // A service's log should say what it did.
            Self::Agent(_) => 2,
        }
    }
}

fn dispatch(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(*args, globals),
        Command::Join(args) => block_on(join::run(*args, globals)),
        Command::Reset(args) => block_on(reset::run(*args, globals)),
        Command::Adopt(args) => block_on(adopt::run(args, globals)),
        Command::Manifests(args) => manifests::run(*args, globals),
        Command::Images(args) => block_on(images::run(args, globals)),
        Command::Config(args) => config::run(args, globals),
        Command::Agent(args) => block_on(agent::run(*args, globals)),
        Command::Certs(args) => block_on(certs::run(args, globals)),
        Command::Kubeconfig(args) => kubeconfig::run(args, globals),
        Command::Etcd(args) => block_on(etcd::run(*args, globals)),
        Command::Status(args) => block_on(status::run(args, globals)),
        Command::Token(args) => block_on(token::run(args, globals)),
        Command::Upgrade(args) => block_on(upgrade::run(args, globals)),
        Command::Version(args) => version::run(args, globals),
        Command::Completion(args) => completion::run(args, globals),
        Command::Man(args) => man::run(args, globals),
    }
}

/// Runs the program: parses `args` (the first is the program's name), runs the command, prints its error.
///
/// Returns what the command returned, and 1 for every error, wrong usage included, as kubeadm does.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // The first thing of all: rustls panics at the first client when nobody chose a provider. It fails only where one
    // was installed before, which serves as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match parse(args.into_iter().collect()) {
        Ok(cli) => run(cli),
        Err(error) => {
            // Help goes to stdout, errors to stderr; nobody is left to tell when either is closed.
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Runs a parsed command line.
pub fn run(cli: Cli) -> ExitCode {
    let Some(command) = cli.command else {
        let _ = Cli::command().print_help();
        return ExitCode::SUCCESS;
    };
    ui::log::init(cli.globals.verbosity.unwrap_or(command.default_verbosity()));
    dispatch(command, &cli.globals).unwrap_or_else(|error| {
        report(&error);
        ExitCode::FAILURE
    })
}

/// How long a command waits, when it is done, for what it has left running.
const LEFTOVERS: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs `future` on a new tokio runtime. Commands that wait for nothing do without one and start sooner.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    use anyhow::Context;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(future);
    // What still runs on a thread of its own is of no use any more, and may hang.
    runtime.shutdown_timeout(LEFTOVERS);
    outcome
}

fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = dashed(args);
    match parse_agent(&args) {
        Some(cli) => Ok(cli),
        None => parse_any(args),
    }
}

/// `kubeboot agent ...` by a parser of it alone; None where that has something to say, which is the whole parser's to do.
///
/// An agent runs for months, and the memory that the parser of every command takes is not had back.
fn parse_agent(args: &[OsString]) -> Option<Cli> {
    let args = args.get(1..).filter(|args| args.first().is_some_and(|name| name == "agent"))?;
    let command = Globals::augment_args(agent::Args::augment_args(clap::Command::new("agent")));
    let mut matches = bools_take_values(command).try_get_matches_from(args).ok()?;
    let globals = Globals::from_arg_matches_mut(&mut matches).ok()?;
    let agent = agent::Args::from_arg_matches_mut(&mut matches).ok()?;
    Some(Cli { globals, command: Some(Command::Agent(Box::new(agent))) })
}

fn parse_any(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let parsed = bools_take_values(Cli::command())
        .try_get_matches_from(&args)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    match parsed {
        // Help shows `--force` rather than `--force[=<FORCE>]`.
        Err(error) if error.kind() == ErrorKind::DisplayHelp => match Cli::command().try_get_matches_from(&args) {
            Err(plain) if plain.kind() == ErrorKind::DisplayHelp => Err(plain),
            _ => Err(error),
        },
        other => other,
    }
}

/// Flags with dashes where underscores were typed, which the Kubernetes tools take as well (`--cert_dir`).
fn dashed(args: Vec<OsString>) -> Vec<OsString> {
    let mut flags_end = false;
    let mut one = |arg: OsString| {
        flags_end |= arg == "--";
        match arg.to_str().filter(|text| !flags_end && text.starts_with("--")) {
            None => arg,
            Some(text) => {
                let (name, value) = text.find('=').map_or((text, ""), |at| text.split_at(at));
                format!("{}{value}", name.replace('_', "-")).into()
            }
        }
    };
    args.into_iter().map(&mut one).collect()
}

/// Lets every switch of `command` and its subcommands take `=true` and `=false`, as Go's flag packages do.
fn bools_take_values(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .value_parser(clap::value_parser!(bool))
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true"),
            _ => arg,
        })
        .mut_subcommands(bools_take_values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        bools_take_values(Cli::command()).debug_assert();
    }

    #[test]
    fn the_log_level_is_taken_in_every_form_kubeadm_takes() {
        for form in [&["--v=5"][..], &["--v", "5"], &["-v5"], &["-v", "5"], &["-v=5"]] {
            for position in 0..2 {
                let mut args = vec!["kubeboot", "version"];
                args.splice(1 + position..1 + position, form.iter().copied());
                let cli = parse(args.iter().map(OsString::from).collect()).unwrap();
                assert_eq!(cli.globals.verbosity, Some(5), "{args:?}");
            }
        }
        let level = |form: &str| {
            parse(["kubeboot", "version", form].map(OsString::from).to_vec()).map(|cli| cli.globals.verbosity)
        };
        assert_eq!((level("--v=1000").unwrap(), level("--v=-1").unwrap()), (Some(255), Some(0)));
        assert!(level("--v=").is_err() && level("--v=x").is_err());
    }

    #[test]
    fn an_agents_command_line_means_the_same_to_its_own_parser_and_to_that_of_all_commands() {
        let lines = [
            "",
            "--pod-manifest-path /m --v=4 --rotate-certificates --rotate-certificates=false",
            "-v 5 --config a --config b --read-only-port 0",
            "--node-labels a=b,c=d --vmodule x=1 --cluster-dns -1",
            "ps -v2",
            "logs etcd-vm -v=3",
            "--v=1 ps",
            "events",
        ];
        for line in lines {
            let args: Vec<OsString> =
                ["kubeboot", "agent"].into_iter().chain(line.split_whitespace()).map(OsString::from).collect();
            let (alone, any) = (parse_agent(&args), parse_any(args));
            let alone = alone.map(|cli| format!("{cli:?}"));
            assert_eq!(alone, any.ok().map(|cli| format!("{cli:?}")), "{line}");
        }
        for line in ["agent --help", "agent --no-such-flag", "agent ps -h", "-v5 agent", "agent extra", "version"] {
            let args: Vec<OsString> =
                ["kubeboot"].into_iter().chain(line.split_whitespace()).map(OsString::from).collect();
            assert!(parse_agent(&args).is_none(), "{line}");
        }
    }

    #[test]
    fn underscores_in_the_names_of_flags_are_dashes_and_values_stay_as_they_are() {
        let given = ["kubeboot", "--cert_dir=/a_b", "-o", "x_y", "--node_name", "a_b", "--", "--c_d"];
        let expected = ["kubeboot", "--cert-dir=/a_b", "-o", "x_y", "--node-name", "a_b", "--", "--c_d"];
        assert_eq!(dashed(given.iter().map(OsString::from).collect()), expected);
    }

    #[test]
    fn a_switch_takes_a_value_after_an_equals_sign_and_nothing_else() {
        let command = || {
            bools_take_values(
                clap::Command::new("x").arg(clap::Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue)),
            )
        };
        for (args, value) in [
            (&["x"][..], false),
            (&["x", "--dry-run"], true),
            (&["x", "--dry-run=false"], false),
            (&["x", "--dry-run=true"], true),
        ] {
            assert_eq!(command().try_get_matches_from(args).unwrap().get_flag("dry-run"), value, "{args:?}");
        }
        assert!(command().try_get_matches_from(["x", "--dry-run=maybe"]).is_err());
        assert!(command().try_get_matches_from(["x", "--dry-run", "false"]).is_err());
    }
}
