//! The client certificate: the one the node was given, a first one by a bootstrap token, and renewals.
//!
//! As with a kubelet, a certificate that the kubeconfig holds is put into the store when it is renewed there
//! (`rotateCertificates`); from then on the one in the store counts, until the kubeconfig holds one that lasts longer:
//! who has to mend a node whose certificate has expired writes a new kubeconfig.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tracing::{info, warn};

use super::request::{self, RequestError, RequestedCertificate, ask};
use super::store::{Pair, Store, StoreError};
use super::{is_valid, renewal};
use crate::agent::apiserver::Parts;
use crate::agent::backoff::{Steps, fraction};
use crate::agent::options::AgentOptions;
use crate::error::chain;
use crate::host::fs::{FsError, read_if_exists, remove_file, write_file, write_through};
use crate::host::watched::Files;
use crate::pki::{PkiError, PrivateKey, point_at_client_certificate};

/// How long to wait after a failure.
const RETRY: Steps = Steps { initial: Duration::from_secs(2), cap: Duration::from_secs(120) };
/// A clock that is set is noticed after this long.
const CLOCK_CHECK: Duration = Duration::from_secs(600);

/// Why there is no first certificate.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It was not given.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// The bootstrap kubeconfig cannot be made into one of the node.
    #[error(transparent)]
    Kubeconfig(#[from] PkiError),
}

/// Which pair to use: `held` by the kubeconfig or `kept` in the store. One that is not valid now is used only where
/// there is no other.
pub fn choose(held: Option<Pair>, kept: Option<Pair>, now: Timestamp) -> Option<Pair> {
    match (held, kept) {
        (Some(held), Some(kept)) => {
            let worth = |pair: &Pair| (is_valid(&pair.certificate, now), pair.certificate.not_after);
            Some(if worth(&held) > worth(&kept) { held } else { kept })
        }
        (held, kept) => held.or(kept),
    }
}

/// Asks for a first client certificate with the credentials of `bootstrap`, keeps it, and writes a kubeconfig that
/// names it. One that was cut off while it waited asks with the same key.
pub async fn bootstrap(options: &AgentOptions, bootstrap: &Path, client: &Client) -> Result<(), BootstrapError> {
    let node = &options.node;
    let Some(kubeconfig) = &node.kubeconfig else { return Ok(()) };
    let store = Store::client(&node.cert_dir);
    store.prepare()?;
    let pending = store.pending_key();
    let earlier = read_if_exists(&pending)?.and_then(|pem| PrivateKey::load(&pem).ok());
    let key = match earlier {
        Some(key) => key,
        None => {
            let key = request::new_key()?;
            write_file(&pending, key.pem(), 0o600)?;
            key
        }
    };
    let asked = ask(client, RequestedCertificate { node: &options.node_name, sans: vec![], key: Some(key) }).await;
    if matches!(asked, Err(RequestError::Refused { .. } | RequestError::NoPair { .. })) {
        // Asking again with it would be answered the same way.
        remove_file(&pending)?;
    }
    store.keep(&asked?, Timestamp::now())?;
    remove_file(&pending)?;
    let text = read_if_exists(bootstrap)?.unwrap_or_default();
    let pointed = point_at_client_certificate(bootstrap, &text, &store.current_path())?;
    let text = pointed.map_or(text, String::into_bytes);
    write_through(kubeconfig, &text, 0o600)?;
    info!(kubeconfig = %kubeconfig.display(), "the node has its client certificate");
    Ok(())
}

/// Renews the client certificate of the store until the agent ends. Its users watch the store.
pub async fn keep(parts: Parts) {
    let node = &parts.options.node;
    let Some(api) = parts.api.as_ref().filter(|_| node.rotate_certificates) else { return };
    let store = Store::client(&node.cert_dir);
    if let Err(error) = store.prepare() {
        warn!(error = chain(&error), "the client certificate cannot be renewed");
        return;
    }
    let mut files = Files::new(vec![store.current_path()]);
    let mut failures = 0_u32;
    loop {
        let Some(pair) = store.current().ok().flatten() else {
            files.changed(CLOCK_CHECK).await;
            continue;
        };
        let due = renewal(&pair.certificate, fraction());
        info!(until = %pair.certificate.not_after, %due, "the client certificate will be renewed");
        tokio::select! {
            () = until(due) => {}
            () = changed(&mut files, &store, &pair) => continue,
        }
        let Some(client) = api.client() else {
            let _ = api.clients().changed().await;
            continue;
        };
        let asked =
            ask(&client, RequestedCertificate { node: &parts.options.node_name, sans: vec![], key: None }).await;
        let kept = match asked {
            Ok(pair) => store.keep(&pair, Timestamp::now()).map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        match kept {
            Ok(()) => {
                info!("the client certificate is renewed");
                failures = 0;
            }
            Err(error) => {
                parts.metrics.client_certificate_errors.count();
                failures = failures.saturating_add(1);
                warn!(error, until = %pair.certificate.not_after, "the client certificate is not renewed yet");
                tokio::time::sleep(RETRY.spread(failures)).await;
            }
        }
    }
}

/// Waits until the store has another pair.
async fn changed(files: &mut Files, store: &Store, pair: &Pair) {
    loop {
        files.changed(CLOCK_CHECK).await;
        if !matches!(store.current(), Ok(Some(now)) if now == *pair) {
            return;
        }
    }
}

/// Waits until a moment of the machine's clock, which may be set meanwhile.
pub async fn until(moment: Timestamp) {
    loop {
        let left = moment.duration_since(Timestamp::now());
        if left <= SignedDuration::ZERO {
            return;
        }
        let left = Duration::try_from(left).unwrap_or(CLOCK_CHECK);
        tokio::time::sleep(left.min(CLOCK_CHECK)).await;
    }
}
