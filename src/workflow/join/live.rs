//! The phases on the running machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use notify::{RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::files::{self, KUBELET_CONF};
use super::{Join, StepError};
use crate::config::spec::JoinSpec;
use crate::error::deepest;
use crate::host::facts::{Facts, Runtime};
use crate::host::paths::KUBELET_CONFIG;
use crate::host::tree::Tree;
use crate::pki::{Kubeconfig, text_in};
use crate::runtime::RuntimeError;
use crate::runtime::cri::Sandboxes;
use crate::workflow::machine::{Cause, Machine};
use crate::workflow::preflight::{self, Goal, OwnLeftovers};
use crate::workflow::state::inventory::Kind;
use crate::yaml;

/// How often the kubelet is asked for its health; it tells no one when it is.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// How often the kubelet's kubeconfig is looked at where the kernel does not tell of changes: kubeadm's interval.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// `preflight`: every check, then discovery, and whether this kubelet goes with that cluster.
pub fn preflight<'a>(join: &'a mut Join<'_>) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let goal = Goal::Join(join.spec, None);
        let machine = &*join.machine;
        let mut facts = machine.facts.gather(&machine.paths, &preflight::interest(goal));
        ask_runtime(machine, join.spec, &mut facts).await;
        preflight::check_machine(goal, &facts, &own_leftovers(join), &*machine.reporter)?;
        let version = join.find().await?.version.clone();
        preflight::check_kubelet(join.spec, &version, &facts, &*join.machine.reporter)?;
        let reading = "Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"";
        join.machine.reporter.note("preflight", format!("{reading}: the control plane is {version}"));
        Ok(false)
    })
}

/// What of the machine's state is an earlier run's, and so no obstacle.
fn own_leftovers(join: &Join<'_>) -> OwnLeftovers {
    let Some(state) = join.session.state() else { return OwnLeftovers::default() };
    let items = state.inventory.items();
    let mut paths: BTreeSet<PathBuf> = items.iter().map(|item| item.path.clone()).collect();
    paths.extend(items.iter().filter(|i| i.kind == Kind::Tree).filter_map(|i| i.path.parent().map(PathBuf::from)));
    OwnLeftovers { paths, ports: BTreeSet::new(), pids: join.machine.service.pid().into_iter().collect() }
}

/// Fills in whether the kubelet's runtime answers.
async fn ask_runtime(machine: &Machine, spec: &JoinSpec, facts: &mut Facts) {
    let asked = async {
        let runtime = machine.runtimes.sandboxes(files::socket(spec)).await?;
        Ok::<_, RuntimeError>((runtime.version().await?, runtime.has_runtime_config().await.ok()))
    };
    (facts.cri, facts.cri_has_runtime_config) = match asked.await {
        Ok((version, has)) => (Runtime::Reachable(version), has),
        Err(error) => {
            let (why, by_environment) = error.silence().unwrap_or_default();
            let (address, error) = (files::socket(spec).to_owned(), deepest(&error));
            (Runtime::Unreachable { address, error, why, by_environment }, None)
        }
    };
}

/// `kubelet-start`: the kubelet's files, and the kubelet with them.
pub fn kubelet_start<'a>(join: &'a mut Join<'_>) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let bootstrapped = join.is_bootstrapped();
        join.find().await?;
        if !bootstrapped {
            refuse_taken_name(join).await?;
        }
        let changed = join.write_files(sandboxes_before(join).await)?;
        let service = &join.machine.service;
        if !changed && service.is_running()? {
            return Ok(false);
        }
        let mut how = service.start()?;
        if !service.outlives_machine() {
            how += "; after a restart of the machine run the same `kubeboot join` again: it goes on with the certificate \
                    that the node has then";
        }
        join.machine.reporter.note("kubelet-start", how);
        Ok(true)
    })
}

/// Another machine of this name would be thrown out of its place.
async fn refuse_taken_name(join: &Join<'_>) -> Result<(), StepError> {
    let name = &join.spec.node.name;
    let Some(bootstrap) = join.found.as_ref().and_then(|found| found.bootstrap.as_ref()) else { return Ok(()) };
    let limit = join.spec.timeouts.kubernetes_api_call;
    match join.machine.joining.has_ready_node(bootstrap, name, limit).await.map_err(StepError::Settings)? {
        true => Err(StepError::NameTaken { name: name.clone() }),
        false => Ok(()),
    }
}

/// Sandboxes that are somebody else's, which a reset leaves alone.
async fn sandboxes_before(join: &Join<'_>) -> Vec<String> {
    let listed = async {
        let runtime: std::sync::Arc<dyn Sandboxes> = join.machine.runtimes.sandboxes(files::socket(join.spec)).await?;
        runtime.list().await
    };
    // A runtime that does not answer, which preflight has reported, runs none.
    listed.await.unwrap_or_default().into_iter().map(|sandbox| sandbox.id).collect()
}

/// `kubelet-wait-bootstrap`: the kubelet is healthy and has its own certificate.
pub fn wait_bootstrap<'a>(join: &'a mut Join<'_>) -> LocalBoxFuture<'a, Result<bool, StepError>> {
    Box::pin(async move {
        let waits = async {
            healthy(join).await?;
            certified(join).await
        };
        tokio::select! {
            done = waits => done?,
            () = join.machine.stop.cancelled() => return Err(StepError::Interrupted),
            log = join.machine.service.ended() => return Err(StepError::Ended { log }),
        }
        join.forget_bootstrap_credentials()
    })
}

pub fn would_wait(spec: &JoinSpec) -> Vec<String> {
    vec![
        format!(
            "Would wait for the kubelet to become healthy, {} s at most",
            spec.timeouts.kubelet_health_check.as_secs()
        ),
        format!("Would wait for the kubelet's own certificate, {} s at most", spec.timeouts.tls_bootstrap.as_secs()),
        format!("Would remove {}", files::BOOTSTRAP_CONF),
    ]
}

async fn healthy(join: &Join<'_>) -> Result<(), StepError> {
    let Some(url) = health_url(&*join.machine.tree)? else { return Ok(()) };
    let limit = join.spec.timeouts.kubelet_health_check;
    let deadline = Instant::now() + limit;
    let reporter = &join.machine.reporter;
    let words = format!("Waiting for a healthy kubelet at {url}. This can take up to {}s", limit.as_secs());
    reporter.note("kubelet-check", words);
    let mut last: Option<Cause> = None;
    while Instant::now() < deadline {
        match join.machine.joining.kubelet_health(&url).await {
            Ok(()) => {
                reporter.note("kubelet-check", "The kubelet is healthy".into());
                return Ok(());
            }
            Err(error) => last = Some(error),
        }
        sleep(HEALTH_INTERVAL).await;
    }
    Err(StepError::Sick { url, limit, log: join.machine.service.log_tail(), last })
}

/// Where the kubelet answers, by its own settings; None where it does not.
fn health_url(tree: &dyn Tree) -> Result<Option<String>, StepError> {
    let text = tree.read(Path::new(KUBELET_CONFIG))?.unwrap_or_default();
    let config = yaml::to_value(&String::from_utf8_lossy(&text)).unwrap_or(Value::Null);
    let port = config["healthzPort"].as_u64().unwrap_or(10248);
    let host = config["healthzBindAddress"].as_str().unwrap_or("127.0.0.1");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Ok((port != 0).then(|| format!("http://{host}:{port}/healthz")))
}

async fn certified(join: &Join<'_>) -> Result<(), StepError> {
    let limit = join.spec.timeouts.tls_bootstrap;
    let deadline = Instant::now() + limit;
    join.machine.reporter.note("kubelet-start", "Waiting for the kubelet to perform the TLS Bootstrap".into());
    let (sender, mut events) = mpsc::unbounded_channel();
    // Without a watch (no inotify left) it is looked at from time to time.
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = sender.send(());
    })
    .ok();
    if let Some(watcher) = &mut watcher {
        let _ = watcher.watch(&join.machine.paths.on_host(files::kubernetes_dir()), RecursiveMode::NonRecursive);
    }
    while !has_certificate(join)? {
        if Instant::now() >= deadline {
            return Err(StepError::NoCertificate { limit, log: join.machine.service.log_tail() });
        }
        tokio::select! {
            Some(()) = events.recv() => {}
            () = sleep(LOOK_INTERVAL) => {}
        }
    }
    Ok(())
}

/// Whether the kubelet has written its kubeconfig, with a certificate that is there.
fn has_certificate(join: &Join<'_>) -> Result<bool, StepError> {
    let Some(text) = join.machine.tree.read(Path::new(KUBELET_CONF))? else { return Ok(false) };
    let Ok(config) = Kubeconfig::parse(&text) else { return Ok(false) };
    let Some((_, user)) = config.user() else { return Ok(false) };
    let has = |name| text_in(user, name).ok().flatten();
    Ok(match has("client-certificate") {
        Some(file) => join.machine.paths.on_host(file).exists(),
        None => has("client-certificate-data").is_some(),
    })
}
