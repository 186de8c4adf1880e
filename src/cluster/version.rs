//! The version that a component of this node reports of itself.

use std::path::Path;

use kube::Client;

use super::ClusterError;
use super::client::client_at;
use super::metrics::samples;

/// The version of the API server (`/version`).
///
/// # Errors
/// It cannot be asked.
pub async fn of_api_server(client: &Client) -> Result<String, kube::Error> {
    Ok(client.apiserver_version().await?.git_version)
}

/// The version of a component that serves metrics at `address` (`https://127.0.0.1:10257`), in them: kube-controller-manager
/// and kube-scheduler have no `/version`. They ask the API server about the client, for which the certificate of `kubeconfig`
/// does; their own certificates are made at each start and signed by none, so that nothing else is sent to them.
///
/// # Errors
/// It cannot be asked, refuses, or does not say.
pub async fn of_component(kubeconfig: &Path, address: &str) -> Result<Option<String>, ClusterError> {
    let client = client_at(kubeconfig, address).await?;
    let refused = |source: kube::Error| ClusterError::Metrics { endpoint: address.to_owned(), source: source.into() };
    let request = http::Request::get("/metrics").body(Vec::new());
    let request = request.map_err(|error| refused(kube::Error::HttpError(error)))?;
    let text = client.request_text(request).await.map_err(refused)?;
    Ok(build_version(&text))
}

/// `git_version` of `kubernetes_build_info`; before Kubernetes 1.20 it was `gitVersion`.
fn build_version(metrics: &str) -> Option<String> {
    let info = samples(metrics).find(|sample| sample.name == "kubernetes_build_info")?;
    let of = |label: &str| info.labels.get(label).cloned();
    of("git_version").or_else(|| of("gitVersion"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_among_the_metrics() {
        let line = |label: &str| {
            format!("# HELP kubernetes_build_info x\na 1\nkubernetes_build_info{{major=\"1\",{label}=\"v1.36.2\"}} 1\n")
        };
        for label in ["git_version", "gitVersion"] {
            assert_eq!(build_version(&line(label)).as_deref(), Some("v1.36.2"));
        }
        assert_eq!(build_version(&line("other")), None);
        assert_eq!(build_version("a 1\n"), None);
    }
}
