//! How long everything `init` writes takes to make, in memory: `cargo bench --bench files [-- ROUNDS]`.
//!
//! Prints the median, the fastest and the slowest round of each row. Started without `--bench` (as `cargo test
//! --benches` does) it makes one round, which says that it works and nothing about time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use kubeboot::config::spec::{ClusterSpec, KeyAlgorithm};
use kubeboot::config::{self, HostDefaults, Input};
use kubeboot::host::Paths;
use kubeboot::host::tree::MemoryTree;
use kubeboot::workflow::init::PhaseSelection;
use kubeboot::workflow::init::dry_run::rehearse;
use kubeboot::{manifests, pki, ui};

const ROUNDS: usize = 50;
/// RSA keys are found by luck, a second or more a round.
const RSA_ROUNDS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = arguments.iter().find_map(|word| word.parse().ok());
    let measures = arguments.iter().any(|word| word == "--bench");
    let rounds = |usual: usize| if measures { given.unwrap_or(usual).max(1) } else { 1 };
    let ecdsa = spec()?;
    let rsa = ClusterSpec { key_algorithm: KeyAlgorithm::Rsa2048, ..ecdsa.clone() };
    let empty = tempfile::tempdir().context("cannot make an empty root directory")?;
    let paths = Paths::new(empty.path());
    let rows = [
        measure("certificates and kubeconfigs, ECDSA-P256", rounds(ROUNDS), || credentials(&ecdsa))?,
        measure("certificates and kubeconfigs, RSA-2048", rounds(RSA_ROUNDS), || credentials(&rsa))?,
        measure("manifests", rounds(ROUNDS), || render(&ecdsa))?,
        measure("whole dry run, ECDSA-P256", rounds(ROUNDS), || dry_run(&ecdsa, &paths))?,
    ];
    Ok(ui::print(&ui::table(["WHAT", "ROUNDS", "MEDIAN", "FASTEST", "SLOWEST"], rows))?)
}

/// A node with everything at its default.
fn spec() -> Result<ClusterSpec> {
    let host = HostDefaults { hostname: "cp1".into(), address: Some([10, 0, 0, 5].into()) };
    Ok(config::load(&Input { host, ..Input::default() })?.spec)
}

fn credentials(spec: &ClusterSpec) -> Result<usize> {
    let mut tree = MemoryTree::empty();
    pki::ensure_certificates(spec, &mut tree, &[], Timestamp::now())?;
    pki::ensure_kubeconfigs(spec, &mut tree, &[], Timestamp::now())?;
    Ok(tree.files().len())
}

fn render(spec: &ClusterSpec) -> Result<usize> {
    let host = manifests::Host { exists: &|_| false, proxy_env: vec![] };
    let mut bytes = 0;
    for component in manifests::COMPONENTS {
        bytes += manifests::render(spec, component, &host)?.yaml.len();
    }
    Ok(bytes)
}

fn dry_run(spec: &ClusterSpec, paths: &Paths) -> Result<usize> {
    let rehearsal = rehearse(spec, &PhaseSelection::Everything, paths, Path::new("/usr/local/bin/kubeboot"))?;
    Ok(rehearsal.text().len())
}

/// Times `work`, whose result says that it did something.
fn measure(what: &str, rounds: usize, work: impl Fn() -> Result<usize>) -> Result<[String; 5]> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        let made = std::hint::black_box(work()?);
        times.push(started.elapsed());
        anyhow::ensure!(made > 0, "{what}: nothing was made");
    }
    times.sort();
    let shown = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    let (fastest, slowest) = (times[0], times[rounds - 1]);
    Ok([what.to_owned(), rounds.to_string(), shown(times[rounds / 2]), shown(fastest), shown(slowest)])
}
