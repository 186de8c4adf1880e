//! `kubeboot upgrade status`, and the command with which the agent has an upgrade carried out.

use std::process::ExitCode;

use anyhow::bail;
use jiff::Timestamp;

use super::apply::follow_it;
use crate::cli::Globals;
use crate::ui::{self, Output};
use crate::workflow::upgrade::order::carry_out;
use crate::workflow::upgrade::order::status::{Component, Replacement, State, Status, status};
use crate::workflow::upgrade::run::Parts;

/// Exit code while an upgrade has not ended.
const OPEN: u8 = 4;

/// Show how the last upgrade stands
///
/// An upgrade is carried out by the node agent: it goes on when the command that ordered it has ended, and after a restart of
/// the agent or of the machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot upgrade status\n  \
    kubeboot upgrade status --watch    # what happens, until it has ended\n\n\
    Exit codes: 0 upgraded, or there was no upgrade; 2 everything is old again; 3 going back failed too; 4 it has not ended; \
    1 it could not be begun, or any other error.")]
pub struct Args {
    /// Follow it to its end, from its beginning
    #[arg(short, long)]
    watch: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Shows it.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    let found = status(&paths)?;
    if args.watch {
        return match found.as_ref().and_then(|status| status.id.as_deref()) {
            Some(id) => follow_it(&paths, id, &*ui::reporter(args.output)).await,
            None => bail!("there is no upgrade to follow: the agent has not been ordered any"),
        };
    }
    let code = found.as_ref().map_or(0, code);
    match (&found, args.output) {
        (None, Output::Text) => ui::print("No upgrade was made on this machine.\n")?,
        (Some(status), Output::Text) => ui::print(&text(status, Timestamp::now()))?,
        (found, output) => ui::print_value(output, found)?,
    }
    Ok(ExitCode::from(code))
}

fn code(status: &Status) -> u8 {
    if let Some(ending) = &status.ending {
        return ending.code;
    }
    match status.state {
        State::Upgraded => 0,
        State::RolledBack => 2,
        State::Failed => 3,
        State::Ordered | State::Running | State::CutOff => OPEN,
        State::Refused => 1,
    }
}

fn text(status: &Status, now: Timestamp) -> String {
    let state = match status.state {
        State::Ordered => "ordered; the node agent has not begun it yet",
        State::Running => "under way",
        State::CutOff => "cut off: run the same command again, or `kubeboot upgrade rollback`",
        State::Upgraded => "done: everything is new",
        State::RolledBack if status.is_rollback() && code(status) == 0 => "done: everything old is back",
        State::RolledBack if status.is_rollback() => "everything is old again, but etcd",
        State::RolledBack => "failed: everything is old again",
        State::Failed if status.is_rollback() => "failed: mend the cause, and run it again",
        State::Failed => "failed, and going back failed too: mend the cause, and run `kubeboot upgrade rollback`",
        State::Refused => "not begun: nothing was changed",
    };
    let mut lines = vec![("Command", status.command.clone()), ("State", state.to_owned())];
    if let Some(ordered) = status.ordered {
        let until = status.last.filter(|_| !status.is_open()).unwrap_or(now);
        let seconds = until.duration_since(ordered).as_secs_f64();
        lines.push((
            "Ordered",
            format!("{ordered:.0}, {seconds:.1} s {}", if status.is_open() { "ago" } else { "in all" }),
        ));
    }
    if status.attempts > 1 {
        lines.push(("Attempts", format!("{}: those before the last were cut off", status.attempts)));
    }
    lines.extend(status.phase.clone().filter(|_| status.is_open()).map(|phase| ("Phase", phase)));
    lines.extend(status.api_away.map(|away| ("API server", format!("not reachable for {away}"))));
    let errors = status.ending.iter().flat_map(|ending| &ending.errors);
    lines.extend(errors.map(|error| ("Error", error.join(": "))));
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    if !status.components.is_empty() {
        text.push('\n');
        text.push_str(&ui::table(COLUMNS, status.components.iter().map(row)));
    }
    text
}

const COLUMNS: [&str; 7] = ["COMPONENT", "FROM", "TO", "STEP", "SECONDS", "HEALTHY", "STATE"];

fn row(one: &Component) -> [String; 7] {
    let healthy = if one.healthy { "yes" } else { "no" }.to_owned();
    let [from, to, step, seconds] = match &one.replacement {
        Some(Replacement { from, to, step, seconds }) => {
            [from.clone(), to.clone(), step.words().to_owned(), format!("{seconds:.1}")]
        }
        None => [(); 4].map(|()| "-".to_owned()),
    };
    [one.name.clone(), from, to, step, seconds, healthy, one.state.clone()]
}

/// Carries out what was ordered, in this process.
pub async fn carry(globals: &Globals) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    let ending = carry_out(&paths, &|kubeconfig, reporter| Parts::of_machine(&paths, kubeconfig, reporter)).await?;
    Ok(ExitCode::from(ending.map_or(0, |ending| ending.code)))
}
