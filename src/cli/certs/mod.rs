//! `kubeboot certs`.

mod expiration;
mod renew;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use jiff::Timestamp;

use super::Globals;
use super::spec::{NodeConfig, SpecFlags, absolute, load};
use crate::config::spec::Overrides;
use crate::host::Paths;
use crate::host::tree::{HostTree, NoRecord};
use crate::pki;
use crate::ui;

/// Look after the cluster's certificates
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot certs check-expiration\n  \
    kubeboot certs renew all\n  \
    kubeboot certs generate-csr --cert-dir /tmp/pki --kubeconfig-dir /tmp/conf")]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    CertificateKey(KeyArgs),
    CheckExpiration(expiration::Args),
    #[command(name = "generate-csr")]
    GenerateCsr(Box<CsrArgs>),
    Renew(renew::Args),
}

/// Print a new key for the certificates in the cluster
///
/// The key of `init --upload-certs --certificate-key`, with which the Secret kubeadm-certs is encrypted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot certs certificate-key\n\n\
    Exit codes: 0 printed, 1 any error.")]
struct KeyArgs {}

/// Make keys and signing requests, for a CA whose key is kept elsewhere
///
/// Writes NAME.key and NAME.csr for every certificate, and for every kubeconfig the file without its certificate and
/// NAME.conf.csr beside it. Keys that are there are used again. Sign the requests where the CA's key is, put NAME.crt
/// beside NAME.key and the certificate into the kubeconfig, and run init: it takes a ca.crt without ca.key for an
/// external CA.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot certs generate-csr\n  \
    kubeboot certs generate-csr --config cluster.yaml --cert-dir /tmp/pki --kubeconfig-dir /tmp/conf\n  \
    openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -copy_extensions copy \\\n    \
    -out apiserver.crt\n\n\
    Exit codes: 0 written, 1 any error.")]
struct CsrArgs {
    /// Directory of the kubeconfigs [default: /etc/kubernetes]
    #[arg(long, value_name = "DIR")]
    kubeconfig_dir: Option<PathBuf>,
    #[command(flatten)]
    spec: SpecFlags,
}

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let paths = globals.paths();
    match args.command {
        Sub::CertificateKey(_) => {
            ui::print(&format!("{}\n", pki::certificate_key()?))?;
            Ok(ExitCode::SUCCESS)
        }
        Sub::CheckExpiration(args) => expiration::run(&args, &paths),
        Sub::GenerateCsr(args) => generate(&args, &paths),
        Sub::Renew(args) => renew::run(args, &paths).await,
    }
}

fn generate(args: &CsrArgs, paths: &Paths) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.spec.input()?)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let kubeconfig_dir = args.kubeconfig_dir.as_deref().map(absolute).transpose()?;
    let spec = loaded.spec.with(Overrides { kubeconfig_dir, ..Overrides::default() });
    let mut tree = HostTree::new(paths.clone(), NoRecord);
    for file in pki::generate_requests(&spec, &mut tree, Timestamp::now())? {
        ui::print(&format!("wrote {}\n", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration of the certificates on this node.
#[derive(Debug, clap::Args)]
struct CertFlags {
    #[command(flatten)]
    node: NodeConfig,
    /// Directory of the certificates [default: the configuration's, /etc/kubernetes/pki as a rule]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Taken for kubeadm's sake: the configuration is on this machine, and no API server is asked
    #[arg(long, value_name = "FILE", hide = true)]
    kubeconfig: Option<PathBuf>,
}

impl CertFlags {
    fn spec(&self, paths: &Paths) -> anyhow::Result<crate::config::ClusterSpec> {
        let certificates_dir = self.cert_dir.as_deref().map(absolute).transpose()?;
        Ok(self.node.spec(paths)?.with(Overrides { certificates_dir, ..Overrides::default() }))
    }
}
