//! The servers of an external etcd: asked for their versions, and judged by them.

use std::path::Path;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use super::{Problem, Subject};
use crate::config::ClusterSpec;
use crate::config::spec::{EtcdSpec, ExternalEtcd};
use crate::error::deepest;
use crate::host::Paths;
use crate::host::facts::EtcdAnswer;
use crate::pki::verifier::Verifier;
use crate::release;

/// How long one server may take: kubeadm's limit is as long.
const LIMIT: Duration = Duration::from_secs(20);

/// What `/version` of an etcd says.
#[derive(Deserialize)]
struct Version {
    etcdserver: String,
}

/// Asks every server of an external etcd, side by side; no one where etcd is local.
pub async fn ask(spec: &ClusterSpec, paths: &Paths) -> Vec<EtcdAnswer> {
    let EtcdSpec::External(etcd) = &spec.etcd else { return vec![] };
    let endpoints = if etcd.http_endpoints.is_empty() { &etcd.endpoints } else { &etcd.http_endpoints };
    let client = client(etcd, paths).map_err(|error| error.to_string());
    let ask = |endpoint: &String| {
        let (client, endpoint) = (client.clone(), endpoint.trim_end_matches('/').to_owned());
        async move {
            let version = match client {
                Ok(client) => version_of(&client, &endpoint).await,
                Err(error) => Err(error),
            };
            EtcdAnswer { endpoint, version }
        }
    };
    futures::future::join_all(endpoints.iter().map(ask)).await
}

async fn version_of(client: &reqwest::Client, endpoint: &str) -> Result<String, String> {
    let asked = async {
        let answer = client.get(format!("{endpoint}/version")).send().await?.error_for_status()?;
        answer.text().await
    };
    let text = asked.await.map_err(|error: reqwest::Error| deepest(&error))?;
    serde_json::from_str(&text).map(|version: Version| version.etcdserver).map_err(|_| "that is no etcd".to_owned())
}

/// With the cluster's own CA and client certificate, and nothing between this machine and etcd.
fn client(etcd: &ExternalEtcd, paths: &Paths) -> Result<reqwest::Client, Box<dyn std::error::Error + Send + Sync>> {
    let read = |path: &Path| {
        std::fs::read(paths.on_host(path)).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let mut builder = reqwest::Client::builder().no_proxy().timeout(LIMIT);
    let identity = match (&etcd.cert_file, &etcd.key_file) {
        (Some(certificate), Some(key)) => {
            Some((certificates(&read(certificate)?)?, PrivateKeyDer::from_pem_slice(&read(key)?)?))
        }
        _ => None,
    };
    let verifier = match &etcd.ca_file {
        Some(ca) => Some(Verifier::new(&certificates(&read(ca)?)?)?),
        None => Verifier::of_machine().ok(),
    };
    if let Some(verifier) = verifier {
        builder = builder.tls_backend_preconfigured(verifier.client_config(identity)?);
    }
    Ok(builder.build()?)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// `ExternalEtcdVersion`.
pub(super) fn version(s: &Subject) -> Vec<Problem> {
    let Some(spec) = s.cluster() else { return vec![] };
    let least = release::find(&spec.kubernetes_version).row.least_external_etcd;
    let wanted = semver::Version::parse(least).ok();
    let problem = |answer: &EtcdAnswer| {
        let endpoint = &answer.endpoint;
        let text = match &answer.version {
            Err(error) => {
                return Some(Problem::new(format!(
                    "etcd at {endpoint} does not tell its version ({error}): see that it runs"
                )));
            }
            Ok(text) => text,
        };
        let found = semver::Version::parse(text).ok();
        let is_fit = found.zip(wanted.as_ref()).is_some_and(|(found, wanted)| found >= *wanted);
        let message =
            || format!("etcd at {endpoint} is {text}, Kubernetes {} needs {least} or newer", spec.kubernetes_version);
        (!is_fit).then(|| Problem::new(message()))
    };
    s.facts.external_etcd.iter().filter_map(problem).collect()
}
