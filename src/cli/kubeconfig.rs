//! `kubeboot kubeconfig`.

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Subcommand};
use jiff::Timestamp;

use super::spec::NodeConfig;
use super::{Cli, Globals};
use crate::config::GoDuration;
use crate::host::tree::{HostTree, NoRecord};
use crate::pki::{NewUser, user_kubeconfig};
use crate::ui;

/// Make kubeconfig files for others
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot kubeconfig user --client-name=ada --org=developers > ada.conf")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    User(UserArgs),
}

/// Print a kubeconfig for another user
///
/// The kubeconfig on stdout holds a new private key, or the token that was given: send it where nobody else reads it.
/// What its user may do is for role bindings to say, by the user's name or by its organizations as groups.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot kubeconfig user --client-name=ada --org=developers --validity-period=24h > ada.conf\n  \
    kubeboot kubeconfig user --client-name=ci --token=\"$TOKEN\" > ci.conf\n\n\
    Exit codes: 0 printed, 1 any error.")]
struct UserArgs {
    /// Name of the user: the common name of the client certificate
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    client_name: String,
    /// Groups of the user: the organizations of the client certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    org: Vec<String>,
    /// Token to identify the user by, instead of a client certificate
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// How long the client certificate is valid
    #[arg(long, value_name = "DURATION", default_value = "8760h0m0s")]
    validity_period: String,
    #[command(flatten)]
    node: NodeConfig,
}

/// Runs the command; without one its help is printed, as kubeadm has it.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Sub::User(args)) => user(args, globals),
        None => {
            let mut cli = Cli::command();
            cli.build();
            let help = cli.find_subcommand_mut("kubeconfig").map(|command| command.render_help().to_string());
            ui::print(&help.unwrap_or_default())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn user(args: UserArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    let spec = args.node.spec(&paths)?;
    let fail = || format!("--validity-period {}", args.validity_period);
    let validity: GoDuration = args.validity_period.parse().with_context(fail)?;
    let validity = validity.to_std().filter(|period| !period.is_zero()).with_context(fail)?;
    let user = NewUser {
        name: args.client_name,
        organizations: args.org,
        token: args.token.filter(|token| !token.is_empty()),
        validity,
    };
    let tree = HostTree::new(paths, NoRecord);
    ui::print(&user_kubeconfig(&spec, &tree, &user, Timestamp::now())?)?;
    Ok(ExitCode::SUCCESS)
}
