//! `kubeboot token`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use jiff::Timestamp;

use super::spec::{SpecFlags, load};
use super::{Globals, Hint, NO_KUBECONFIG};
use crate::cluster::bootstrap_token::{secret_name, to_secret};
use crate::cluster::discovery::pins;
use crate::cluster::join_command::JoinCommand;
use crate::cluster::remote::{Remote, find_kubeconfigs};
use crate::cluster::tokens::{self, COLUMNS};
use crate::config::bootstrap_token::{BootstrapToken, Lifetime, Token, token_id};
use crate::config::certificate_key::CertificateKey;
use crate::config::{GoDuration, Secret};
use crate::ui::{self, Output};
use crate::yaml;

/// Manage the bootstrap tokens that nodes join the cluster with
///
/// A bootstrap token is a Secret of the type bootstrap.kubernetes.io/token in the namespace kube-system. It reads
/// `[a-z0-9]{6}.[a-z0-9]{16}`: an id that anybody may see, and a secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot token create --print-join-command\n  \
    kubeboot token list\n  \
    kubeboot token delete abcdef\n\n\
    Exit codes: 0 done, 1 any error.")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
struct Shared {
    /// Kubeconfig to reach the cluster with [default: $KUBECONFIG (or ~/.kube/config), else
    /// /etc/kubernetes/admin.conf]
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Create(Box<Create>),
    List(List),
    Delete(Delete),
    Generate(Generate),
}

/// Create a bootstrap token in the cluster and print it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot token create\n  \
    kubeboot token create --ttl 2h --description 'new rack'\n  \
    kubeboot token create --print-join-command\n\n\
    Exit codes: 0 done, 1 any error.")]
struct Create {
    /// The token [default: a random one]
    #[arg(value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,
    /// Configuration file whose bootstrapTokens are created
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "description", "groups", "usages", "ttl"])]
    config: Option<PathBuf>,
    /// What the token is for, for people to read
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Groups of whoever shows the token, separated by commas
    #[arg(
        long,
        value_name = "GROUP",
        value_delimiter = ',',
        default_value = "system:bootstrappers:kubeadm:default-node-token"
    )]
    groups: Vec<String>,
    /// What the token is good for: signing, authentication
    #[arg(long, value_name = "USAGE", value_delimiter = ',', default_value = "signing,authentication")]
    usages: Vec<String>,
    /// How long the token lives, such as 1h or 30m; 0 lets it live for ever
    #[arg(long, value_name = "DURATION", default_value = "24h0m0s", value_parser = ttl)]
    ttl: GoDuration,
    /// Print the command that joins a node in place of the token
    #[arg(long)]
    print_join_command: bool,
    /// With --print-join-command: print the command for a control-plane node, with this key. `kubeboot init phase
    /// upload-certs --upload-certs` makes one
    #[arg(long, value_name = "KEY", requires = "print_join_command", value_parser = secret)]
    certificate_key: Option<Secret>,
}

/// List the bootstrap tokens of the cluster, with their secrets
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, 1 any error.")]
struct List {
    /// Format: text, or one JSON object or YAML document a token
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Delete bootstrap tokens from the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, 1 any error.")]
struct Delete {
    /// Ids of tokens, or whole tokens
    #[arg(value_name = "TOKEN", required = true, value_parser = secret)]
    tokens: Vec<Secret>,
}

/// Print a new random token, without the cluster hearing of it
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, 1 any error.")]
struct Generate {}

/// A value that no error of the command line shows.
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret(text.to_owned()))
}

fn ttl(text: &str) -> Result<GoDuration, String> {
    let ttl: GoDuration = text.parse().map_err(|error: crate::config::DurationError| error.to_string())?;
    match ttl.is_negative() {
        true => Err("a token cannot live shorter than 0s; 0s lets it live for ever".into()),
        false => Ok(ttl),
    }
}

/// Runs one of the commands.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let Args { command, shared } = args;
    let admin = globals.paths().kubeconfig("admin.conf");
    let kubeconfigs = shared.kubeconfig.map_or_else(|| find_kubeconfigs(admin), |named| vec![named]);
    let needs_cluster = !matches!(command, Sub::Generate(_));
    for kubeconfig in kubeconfigs.iter().filter(|_| needs_cluster) {
        if let Err(error) = std::fs::File::open(kubeconfig) {
            let what = format!("cannot read the kubeconfig {}", kubeconfig.display());
            return Err(anyhow::Error::new(error).context(what).context(Hint::new(NO_KUBECONFIG)));
        }
    }
    match command {
        Sub::Create(create) => create.run(&kubeconfigs, shared.dry_run).await?,
        Sub::List(list) => list.run(&kubeconfigs).await?,
        Sub::Delete(delete) => delete.run(&kubeconfigs, shared.dry_run).await?,
        Sub::Generate(_) => ui::print(&format!("{}\n", Token::generate()?.reveal()))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Create {
    async fn run(&self, kubeconfigs: &[PathBuf], dry_run: bool) -> anyhow::Result<()> {
        let key = self.certificate_key.as_ref().map(|key| key.0.parse::<CertificateKey>());
        let key = key.transpose().context("--certificate-key")?;
        let tokens = self.tokens()?;
        let Some(first) = tokens.first() else { bail!("there is no token to create") };
        let remote = Remote::open(kubeconfigs).await?;
        let now = Timestamp::now();
        for token in &tokens {
            match dry_run {
                true => ui::print(&would_create(token, now)?)?,
                false => tokens::create(&remote, token, now).await?,
            }
        }
        let text = match self.print_join_command {
            true => join_command(&remote, kubeconfigs, &first.token, key.as_ref())?,
            false => first.token.reveal(),
        };
        Ok(ui::print(&format!("{text}\n"))?)
    }

    /// What is to be created: the one token of the flags, or those of the file.
    fn tokens(&self) -> anyhow::Result<Vec<BootstrapToken>> {
        let token = |given: Option<Token>| given.map_or_else(Token::generate, Ok);
        if let Some(config) = &self.config {
            let mut flags = SpecFlags::default();
            flags.config = Some(config.clone());
            let wanted = load(&flags.input()?)?.spec.bootstrap_tokens;
            let with = |wanted: &crate::config::spec::TokenSpec| token(wanted.token.clone()).map(|t| wanted.with(t));
            return Ok(wanted.iter().map(with).collect::<Result<_, _>>()?);
        }
        let given = self.token.as_ref().map(|text| text.0.parse()).transpose()?;
        let token = BootstrapToken {
            token: token(given)?,
            description: self.description.clone(),
            lifetime: Lifetime::from_ttl(self.ttl.to_std().unwrap_or_default()),
            usages: list(&self.usages),
            groups: list(&self.groups),
        };
        token.check()?;
        Ok(vec![token])
    }
}

/// The items of a list, of which an empty flag has none.
fn list(items: &[String]) -> Vec<String> {
    items.iter().filter(|item| !item.is_empty()).cloned().collect()
}

fn would_create(token: &BootstrapToken, now: Timestamp) -> anyhow::Result<String> {
    let object = yaml::to_string(&to_secret(token, now))?;
    let object: String = object.lines().map(|line| format!("\t{line}\n")).collect();
    Ok(format!(
        "[dryrun] Would perform action CREATE on resource \"secrets\" in API group \"core/v1\"\n[dryrun] Attached \
         object:\n{object}"
    ))
}

fn join_command(
    remote: &Remote,
    kubeconfigs: &[PathBuf],
    token: &Token,
    key: Option<&CertificateKey>,
) -> anyhow::Result<String> {
    let pins = pins::of_pem(remote.authority.as_bytes()).with_context(|| {
        let named: Vec<String> = kubeconfigs.iter().map(|path| path.display().to_string()).collect();
        format!("{} has no certificate authority that a node could be told of", named.join(":"))
    })?;
    let (token, key) = (token.reveal(), key.map(CertificateKey::reveal));
    let command = JoinCommand {
        endpoint: remote.endpoint(),
        token: &token,
        pins: &pins,
        control_plane: key.is_some(),
        certificate_key: key.as_deref(),
    };
    Ok(command.line())
}

impl List {
    async fn run(&self, kubeconfigs: &[PathBuf]) -> anyhow::Result<()> {
        let found = tokens::list(&Remote::open(kubeconfigs).await?).await?;
        let (tokens, broken): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
        for error in broken.into_iter().filter_map(Result::err) {
            tracing::warn!("{error}");
        }
        let tokens: Vec<BootstrapToken> = tokens.into_iter().flatten().collect();
        if self.output == Output::Text {
            let now = Timestamp::now();
            return Ok(ui::print(&ui::table(COLUMNS, tokens.iter().map(|token| tokens::row(token, now))))?);
        }
        for (index, token) in tokens.iter().enumerate() {
            if self.output == Output::Yaml && index > 0 {
                ui::print("---\n")?;
            }
            ui::print_value(self.output, &tokens::shown(token))?;
        }
        Ok(())
    }
}

impl Delete {
    async fn run(&self, kubeconfigs: &[PathBuf], dry_run: bool) -> anyhow::Result<()> {
        let ids = self.tokens.iter().map(|text| token_id(&text.0)).collect::<Result<Vec<_>, _>>()?;
        let remote = Remote::open(kubeconfigs).await?;
        for id in ids {
            match dry_run {
                true => ui::print(&format!(
                    "[dryrun] Would perform action DELETE on resource \"secrets\" in API group \"core/v1\"\n[dryrun] \
                     Resource name \"{}\", namespace \"kube-system\"\n",
                    secret_name(&id)
                ))?,
                false => tokens::delete(&remote, &id).await?,
            }
            ui::print(&format!("bootstrap token {id:?} deleted\n"))?;
        }
        Ok(())
    }
}
