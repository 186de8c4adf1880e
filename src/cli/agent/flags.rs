//! Flags of `kubeboot agent`: the kubelet's, as the table of options has them, with its help of those that are followed.

use clap::error::ErrorKind;
use clap::{ArgAction, ArgMatches, FromArgMatches};

use crate::agent::options::Flags;
use crate::agent::options::table::{self, Flag, Meaning, OptionRow};

/// The flags as they were given.
#[derive(Debug)]
pub struct FlagArgs(pub Flags);

impl FlagArgs {
    /// Those that are read here: the flags of every command are not.
    fn rows() -> impl Iterator<Item = (&'static Flag, &'static OptionRow)> {
        table::flags().filter(|(_, row)| !matches!(row.meaning, Meaning::Global))
    }
}

fn arg(flag: &'static Flag, row: &'static OptionRow) -> clap::Arg {
    let kind = row.kind;
    let read = move |text: &str| kind.read(text).map(|_| text.to_owned());
    let arg = clap::Arg::new(flag.name).long(flag.name).action(ArgAction::Append).value_parser(read);
    let arg = match kind.is_switch() {
        true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        // Whatever comes behind it is its value, as with the kubelet.
        false => arg.num_args(1).allow_hyphen_values(true),
    };
    match flag.help {
        Some(help) => arg.value_name(help.value).help(row.help_line()),
        None => arg.hide(true),
    }
}

impl clap::Args for FlagArgs {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        let flags = |rows: &'static [OptionRow]| rows.iter().filter_map(|row| Some((row.flag.as_ref()?, row)));
        for section in table::SECTIONS {
            for (flag, row) in flags(section.rows) {
                let arg = arg(flag, row);
                command = command.arg(match section.heading {
                    Some(heading) => arg.help_heading(heading),
                    None => arg,
                });
            }
        }
        Self::rows()
            .filter(|(flag, _)| flag.help.is_none())
            .fold(command, |command, (flag, row)| command.arg(arg(flag, row)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FlagArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        let all = Self::rows().filter_map(|(flag, row)| Some((row, matches.get_many::<String>(flag.name)?)));
        for (row, value) in all.flat_map(|(row, values)| values.map(move |value| (row, value))) {
            // It has been read once by the argument's own reader.
            let given =
                row.kind.read(value).map_err(|problem| clap::Error::raw(ErrorKind::ValueValidation, problem))?;
            flags.set(row, given);
        }
        flags.ignored.sort_unstable();
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
