//! `COMMAND phase NAME [CHILD]` as commands of their own, made from a command's table of phases: each takes the flags
//! that its row allows, and its help explains it.

use std::fmt::Debug;
use std::marker::PhantomData;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand};

use crate::workflow::phase::{PhaseError, PhaseOptions, Phases, options_of};

/// Flags that every phase takes. The version among them, more often than kubeadm does: no server is asked for it, and it
/// decides what files and objects say.
const COMMON: &[&str] = &["config", "dry-run", "kubernetes-version", "output", "output-dir"];
/// Takes whatever is given to a phase that is not there.
const REST: &str = "rest";

/// The phases of one command.
pub trait Table {
    /// Flags of the command.
    type Flags: Args + Debug;

    /// What `phase --help` ends with.
    fn help() -> String;

    /// Names and titles, those of phases that are not there too.
    fn phases() -> Vec<Listed>;

    /// Which flags each takes, and its paragraph.
    fn options() -> &'static [PhaseOptions];
}

/// Makes the [`Table`] of a command: its flags, its phases, what each takes, and what the help ends with.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $flags:ty, $phases:expr, $options:expr, $help:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        struct $name;

        impl $crate::cli::phases::Table for $name {
            type Flags = $flags;

            fn help() -> String {
                $help
            }

            fn phases() -> Vec<$crate::cli::phases::Listed> {
                $crate::cli::phases::listed(&$phases)
            }

            fn options() -> &'static [$crate::workflow::phase::PhaseOptions] {
                $options
            }
        }
    };
}
pub(super) use table;

/// A phase as the command line knows it.
pub struct Listed {
    /// Its name.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// What it does, in a few words.
    pub title: &'static str,
    /// Names and titles of its children.
    pub children: Vec<(&'static str, &'static str)>,
    /// Whether this version has it.
    pub is_built: bool,
}

/// The phases of `phases` for [`Table::phases`].
pub fn listed<W>(phases: &'static Phases<W>) -> Vec<Listed> {
    let built = phases.list.iter().map(|phase| Listed {
        name: phase.name,
        aliases: phase.aliases,
        title: phase.title,
        children: phase.children.iter().map(|child| (child.name, child.title)).collect(),
        is_built: true,
    });
    let missing = phases.not_built.iter().filter(|name| !name.contains('/')).map(|name| Listed {
        name,
        aliases: &[],
        title: "",
        children: vec![],
        is_built: false,
    });
    built.chain(missing).collect()
}

/// The one subcommand of a command that has phases.
#[derive(Debug, Subcommand)]
pub enum Sub<T: Table> {
    /// Run one phase alone
    #[command(after_help = T::help())]
    Phase(Chosen<T>),
}

/// One phase that was asked for.
#[derive(Debug)]
pub struct Chosen<T: Table> {
    /// Its name.
    pub name: String,
    /// One of a group's phases, or `all`.
    pub sub: Option<String>,
    /// What was given with it.
    pub flags: T::Flags,
    table: PhantomData<T>,
}

impl<T: Table> Args for Chosen<T> {
    fn augment_args(command: Command) -> Command {
        command.subcommand_required(true).arg_required_else_help(true).subcommands(T::phases().iter().map(phase::<T>))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Table> FromArgMatches for Chosen<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let none = || clap::Error::raw(ErrorKind::MissingSubcommand, "name a phase\n");
        let (name, matches) = matches.subcommand().ok_or_else(none)?;
        if T::phases().iter().any(|listed| listed.name == name && !listed.is_built) {
            let error = PhaseError::NotBuilt { name: name.to_owned() };
            return Err(clap::Error::raw(ErrorKind::InvalidSubcommand, format!("{error}\n")));
        }
        let (sub, matches) = match matches.subcommand() {
            Some((sub, matches)) => (Some(sub.to_owned()), matches),
            None => (None, matches),
        };
        refuse_others::<T>(name, sub.as_deref(), matches)?;
        let flags = T::Flags::from_arg_matches(matches)?;
        Ok(Self { name: name.to_owned(), sub, flags, table: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn phase<T: Table>(listed: &Listed) -> Command {
    let command = Command::new(listed.name).aliases(listed.aliases).about(listed.title);
    if !listed.is_built {
        let rest = Arg::new(REST).num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).hide(true);
        return command.hide(true).disable_help_flag(true).arg(rest);
    }
    if listed.children.is_empty() {
        return leaf::<T>(command, (listed.name, None), listed.title);
    }
    let all = ("all", "every one of them");
    let children = std::iter::once(&all)
        .chain(&listed.children)
        .map(|(name, title)| leaf::<T>(Command::new(*name).about(*title), (listed.name, Some(name)), title));
    let help = options_of(T::options(), listed.name, None).map_or("", |row| row.help);
    command
        .long_about(format!("{}\n\n{help}", capitalised(listed.title)))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(children)
}

/// A phase without children: flags that are not for it are known, so that they can be told of, and not shown.
fn leaf<T: Table>(command: Command, (name, sub): (&str, Option<&str>), title: &str) -> Command {
    let row = options_of(T::options(), name, sub);
    let takes = |arg: &Arg| arg.get_long().is_none_or(|long| is_taken(row, long));
    let hide = |arg: Arg| if takes(&arg) { arg } else { arg.hide(true) };
    let help = row.map_or("", |row| row.help);
    T::Flags::augment_args(command)
        .mut_args(hide)
        // Flags with words of their own would say them here.
        .about(title.to_owned())
        .long_about(format!("{}\n\n{help}", capitalised(title)))
        .after_help("Exit codes: 0 done, 1 any error.")
}

fn is_taken(row: Option<&PhaseOptions>, flag: &str) -> bool {
    COMMON.contains(&flag) || row.is_some_and(|row| row.flags.split_whitespace().any(|name| name == flag))
}

fn refuse_others<T: Table>(name: &str, sub: Option<&str>, matches: &ArgMatches) -> Result<(), clap::Error> {
    let row = options_of(T::options(), name, sub);
    let every = T::Flags::augment_args(Command::new("phase"));
    let given = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    // Scripts give one set of flags to every phase of a group; only what none of them takes is a mistake.
    let in_group = |row: &&PhaseOptions| sub.is_some() && row.name.split('/').next() == Some(name);
    let is_groups = |flag: &str| T::options().iter().filter(in_group).any(|row| is_taken(Some(row), flag));
    let refused = |arg: &Arg| arg.get_long().map(str::to_owned).filter(|long| !is_taken(row, long) && !is_groups(long));
    let Some(flag) = every.get_arguments().filter(given).find_map(refused) else { return Ok(()) };
    let whole = sub.map_or_else(|| name.to_owned(), |sub| format!("{name} {sub}"));
    let takes = row.map(|row| row.flags).unwrap_or_default();
    let list: Vec<String> =
        ["config", "dry-run"].into_iter().chain(takes.split_whitespace()).map(|flag| format!("--{flag}")).collect();
    let text = format!("--{flag} has no effect on phase {whole}; it takes {}\n", list.join(", "));
    Err(clap::Error::raw(ErrorKind::UnknownArgument, text))
}

fn capitalised(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of the flags.
    #[derive(Debug, clap::Args)]
    struct Flags {
        #[arg(long)]
        cert_dir: Option<String>,
        #[arg(long)]
        config: Option<String>,
        #[arg(long)]
        patches: Option<String>,
        #[arg(long)]
        node_name: Option<String>,
    }

    #[derive(Debug)]
    struct Sample;

    impl Table for Sample {
        type Flags = Flags;

        fn help() -> String {
            String::new()
        }

        fn phases() -> Vec<Listed> {
            let one = |name, children, is_built| Listed { name, aliases: &[], title: "does it", children, is_built };
            vec![
                one("certs", vec![("ca", "the authority")], true),
                one("wait", vec![], true),
                one("later", vec![], false),
            ]
        }

        fn options() -> &'static [PhaseOptions] {
            const ROWS: &[PhaseOptions] = &[
                PhaseOptions { name: "certs", flags: "cert-dir", help: "The paragraph." },
                PhaseOptions { name: "certs/all", flags: "cert-dir node-name", help: "" },
                PhaseOptions { name: "wait", flags: "", help: "Waits." },
            ];
            ROWS
        }
    }

    fn parse(words: &[&str]) -> Result<Chosen<Sample>, clap::Error> {
        let command = Chosen::<Sample>::augment_args(Command::new("phase"));
        let matches = command.try_get_matches_from(std::iter::once(&"phase").chain(words))?;
        Chosen::from_arg_matches(&matches)
    }

    #[test]
    fn a_phase_is_named_alone_or_in_its_group_with_the_flags_that_are_for_it() {
        let chosen = parse(&["certs", "ca", "--cert-dir=/x", "--config=y"]).unwrap();
        assert_eq!((chosen.name.as_str(), chosen.sub.as_deref()), ("certs", Some("ca")));
        assert_eq!((chosen.flags.cert_dir.as_deref(), chosen.flags.config.as_deref()), (Some("/x"), Some("y")));
        assert!(chosen.flags.patches.is_none() && chosen.flags.node_name.is_none());
        assert_eq!(parse(&["certs", "all"]).unwrap().sub.as_deref(), Some("all"));
        assert_eq!(parse(&["wait"]).unwrap().sub, None);
    }

    #[test]
    fn any_other_flag_is_refused_with_those_it_takes() {
        let error = parse(&["certs", "ca", "--patches=/p"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "error: --patches has no effect on phase certs ca; it takes --config, --dry-run, --cert-dir\n"
        );
        assert!(parse(&["certs", "ca", "--node-name=n"]).is_ok(), "another phase of the group takes it");
        assert!(parse(&["wait", "--node-name=n"]).is_err());
        assert!(parse(&["wait", "--cert-dir=/x"]).unwrap_err().to_string().contains("phase wait"));
    }

    #[test]
    fn a_group_alone_an_unknown_phase_and_one_that_is_not_there_are_told_apart() {
        assert_eq!(parse(&["certs"]).unwrap_err().kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(parse(&["nope"]).unwrap_err().kind(), ErrorKind::InvalidSubcommand);
        let error = parse(&["later", "child", "--flag"]).unwrap_err().to_string();
        assert!(error.contains("later is one of kubeadm's"), "{error}");
    }

    #[test]
    fn help_has_the_paragraph_the_children_and_the_flags() {
        let help = |words: &[&str]| parse(words).unwrap_err().to_string();
        let group = help(&["certs", "--help"]);
        assert!(group.contains("The paragraph.") && group.contains("the authority"), "{group}");
        assert!(!group.contains("Words of the flags"), "{group}");
        let child = help(&["certs", "ca", "--help"]);
        assert!(child.contains("--cert-dir") && !child.contains("--patches"), "{child}");
    }
}
