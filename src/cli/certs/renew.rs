//! `kubeboot certs renew`.

use std::path::Path;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use jiff::Timestamp;

use super::CertFlags;
use crate::agent::control::restart::Restarter;
use crate::agent::control::{self, ControlSocket};
use crate::cli::Hint;
use crate::config::ClusterSpec;
use crate::host::Paths;
use crate::host::paths::{CONTROL_SOCKET, MANIFESTS_DIR};
use crate::host::tree::{HostTree, NoRecord, Tree};
use crate::manifests::COMPONENTS;
use crate::pki::{self, Renewable, renewable_names};
use crate::ui::{self, Output};
use crate::workflow::renewal::live_certificates::Here;
use crate::workflow::renewal::{self, Machine, RenewalStatus, Summary};
use crate::workflow::session::Session;

/// Renew certificates, and restart what reads them only when it starts
///
/// Each new certificate says what the old one says, whatever time that has left, and gets a new key. The files are
/// replaced all or none. Then the components that have to are restarted one after the other, and each new certificate
/// is seen in use: served where it is a server's, accepted by the API server where it is in a kubeconfig. A renewal
/// that was cut off is finished by the same command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot certs renew all\n  \
    kubeboot certs renew apiserver\n  \
    kubeboot certs renew all --no-restart    # only the files, as kubeadm does\n\n\
    Certificates of a CA whose key is kept elsewhere are passed over: see `kubeboot certs generate-csr`.\n\n\
    Exit codes: 0 renewed, or nothing to renew; 1 any error.")]
pub struct Args {
    /// Which one, or `all` of them
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(names()))]
    name: String,
    /// Only write the files; components that run go on with the old certificates
    #[arg(long)]
    no_restart: bool,
    #[command(flatten)]
    certs: CertFlags,
}

fn names() -> Vec<&'static str> {
    std::iter::once("all").chain(renewable_names()).collect()
}

/// Renews, and says what became of each.
pub async fn run(args: Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    let spec = args.certs.spec(paths)?;
    let all = pki::renewables(&spec);
    let mut wanted: Vec<Renewable> =
        all.into_iter().filter(|one| args.name == "all" || one.name == args.name).collect();
    let is_elsewhere = is_elsewhere(&HostTree::new(paths.clone(), NoRecord), &spec)?;
    if is_elsewhere {
        // A kubeconfig of this machine with a certificate of another CA would be of no use to anyone.
        wanted.retain(|one| !one.is_kubeconfig());
        ui::print(&format!(
            "[certs] {} is read by no component of this machine: kubeconfigs are left as they are, and nothing is restarted\n",
            spec.certificates_dir.display()
        ))?;
    }
    if wanted.is_empty() {
        anyhow::bail!("{} belongs to this machine, and --cert-dir names certificates of elsewhere", args.name);
    }
    let tree = HostTree::new(paths.clone(), NoRecord);
    if !wanted.iter().any(|one| tree.exists(&one.path(&spec))) {
        ui::print(&nothing(&args.name, &spec))?;
        return Ok(ExitCode::SUCCESS);
    }
    // One command at a time where kubeboot keeps its state; a node that kubeadm made has none.
    let _session = Session::attach(paths)?;
    let socket = ControlSocket(paths.on_host(CONTROL_SOCKET));
    let answers = paths.is_live() && control::report(&socket.0).await.is_ok();
    if answers {
        // It finishes the files should this command be killed. One that does not is an earlier kubeboot's.
        let _ = control::look_for_upgrade(&socket.0).await;
    }
    let agent = Some(&socket as &dyn Restarter).filter(|_| answers && !args.no_restart && !is_elsewhere);
    let mut unprinted = None;
    let mut reported = |name: &str, reported: RenewalStatus| {
        let title = titles(&wanted, name);
        unprinted = ui::print(&line(&title, reported)).err();
    };
    let mut machine = Machine {
        paths: paths.clone(),
        tree: &mut HostTree::new(paths.clone(), NoRecord),
        spec: &spec,
        agent,
        live_certificates: &Here(paths.clone()),
        reporter: &*ui::reporter(Output::Text),
        reported: &mut reported,
        limit: spec.timeouts.upgrade_manifests,
    };
    let summary = renewal::run(&mut machine, &wanted, Timestamp::now()).await.map_err(|error| {
        anyhow::Error::new(error)
            .context(Hint::new("mend the cause and run the same command again: it goes on from here"))
    })?;
    unprinted.map_or(Ok(()), Err)?;
    ui::print(&ending(&summary, &args.name))?;
    Ok(ExitCode::SUCCESS)
}

/// One line in place of one for each file that is not there.
fn nothing(name: &str, spec: &ClusterSpec) -> String {
    let what = if name == "all" { "no certificate or kubeconfig is there" } else { &format!("{name} is not there") };
    format!(
        "Nothing to renew: {what} (certificates are looked for in {}; --cert-dir names another directory, and \
         `kubeboot init` makes them)\n",
        spec.certificates_dir.display()
    )
}

/// Whether this machine has a control plane, and none of its components reads anything in the directory of certificates.
fn is_elsewhere(tree: &dyn Tree, spec: &ClusterSpec) -> anyhow::Result<bool> {
    let dir = format!("{}/", spec.certificates_dir.display());
    let mut manifests = Vec::new();
    for component in COMPONENTS {
        manifests.extend(tree.read(&Path::new(MANIFESTS_DIR).join(format!("{component}.yaml")))?);
    }
    let reads = |manifest: &Vec<u8>| String::from_utf8_lossy(manifest).contains(&dir);
    Ok(!manifests.is_empty() && !manifests.iter().any(reads))
}

fn titles(wanted: &[Renewable], name: &str) -> String {
    wanted.iter().find(|one| one.name == name).map_or_else(|| name.to_owned(), Renewable::title)
}

/// kubeadm's words.
fn line(title: &str, reported: RenewalStatus) -> String {
    match reported {
        RenewalStatus::Renewed => format!("{title} renewed\n"),
        RenewalStatus::External(authority) => format!("Detected external {authority}, {title} can't be renewed\n"),
        RenewalStatus::Missing => format!("MISSING! {title}\n"),
    }
}

fn ending(summary: &Summary, name: &str) -> String {
    let mut text = String::new();
    if !summary.restarted.is_empty() {
        text.push_str(&format!("\nRestarted {}.\n", summary.restarted.join(", ")));
    }
    if !summary.proven.is_empty() {
        text.push_str(&format!("Seen in use: the new {}.\n", summary.proven.join(", ")));
    }
    if !summary.left.is_empty() {
        let done = if name == "all" { "Done renewing certificates. " } else { "" };
        let left = summary.left.join(", ");
        text.push_str(&format!("\n{done}You must restart {left}, so that they can use the new certificates.\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::MemoryTree;

    #[test]
    fn certificates_that_no_component_here_reads_are_of_elsewhere() {
        let (mut spec, mut tree) = (crate::testing::spec(), MemoryTree::empty());
        assert!(!is_elsewhere(&tree, &spec).unwrap(), "without a control plane there is nothing to spoil");
        let manifest = b"command: [kube-apiserver, --tls-cert-file=/etc/kubernetes/pki/apiserver.crt]";
        tree.write(Path::new("/etc/kubernetes/manifests/kube-apiserver.yaml"), manifest, 0o600).unwrap();
        assert!(!is_elsewhere(&tree, &spec).unwrap());
        for other in ["/root/other/pki", "/etc/kubernetes/pk"] {
            spec.certificates_dir = other.into();
            assert!(is_elsewhere(&tree, &spec).unwrap(), "{other}");
        }
    }

    #[test]
    fn where_nothing_is_there_one_line_says_so() {
        let spec = crate::testing::spec();
        let text = nothing("all", &spec);
        assert!(
            text.starts_with("Nothing to renew: no certificate or kubeconfig is there (certificates are looked for")
        );
        assert_eq!(text.lines().count(), 1);
        assert!(nothing("apiserver", &spec).starts_with("Nothing to renew: apiserver is not there ("));
    }

    #[test]
    fn kubeconfigs_are_told_from_certificates() {
        let all = pki::renewables(&crate::testing::spec());
        let names: Vec<&str> = all.iter().filter(|one| one.is_kubeconfig()).map(|one| one.name).collect();
        assert_eq!(names, ["admin.conf", "controller-manager.conf", "scheduler.conf", "super-admin.conf"]);
    }
}
