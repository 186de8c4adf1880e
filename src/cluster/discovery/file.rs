//! Discovery by a file: a kubeconfig that was handed over, on this machine or behind an https URL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::kubeconfig::{self, ClusterInfo, KubeconfigError};
use super::{DiscoveryError, FetchError, KUBECONFIG, Source, Tries};
use crate::pki::client::user_fields;
use crate::pki::verifier::Verifier;
use crate::pki::{Kubeconfig, Problem};

/// The longest file that is read; a kubeconfig has some KiB.
const LONGEST: usize = 1 << 20;

/// Where the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// On this machine.
    Path(PathBuf),
    /// Behind an `https://` URL, whose certificate has to be good for this machine.
    Url(String),
}

/// What a discovery file says.
pub struct Handed {
    /// The cluster; its server and CA are those of cluster-info, if that may be read.
    pub info: ClusterInfo,
    /// Name and credentials of the user in the file, if there is one. Secret, hence no Debug.
    pub user: Option<(String, Value)>,
}

impl FileSource {
    fn name(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Url(url) => PathBuf::from(url),
        }
    }

    async fn read(&self, limit: Duration) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let url = match self {
            Self::Path(path) => return Ok(std::fs::read_to_string(path)?),
            Self::Url(url) => url,
        };
        let tls = Verifier::of_machine()?.client_config(None)?;
        let client =
            reqwest::Client::builder().tls_backend_preconfigured(tls).https_only(true).timeout(limit).build()?;
        let mut answer = client.get(url).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                return Err(format!("it is longer than {LONGEST} bytes").into());
            }
        }
        Ok(String::from_utf8(body)?)
    }
}

/// Reads a discovery file, and takes server and CA from cluster-info where the file's own server lets it be read.
///
/// # Errors
/// A file that cannot be had or used, and a server that does not answer within `limit`.
pub async fn by_file(
    source: &dyn Source,
    file: &FileSource,
    limit: Duration,
    waiting: &(dyn Fn(&DiscoveryError) + Sync),
) -> Result<Handed, DiscoveryError> {
    let path = file.name();
    let text = file.read(limit).await.map_err(|source| DiscoveryError::File { path: path.clone(), source })?;
    let content = |source| DiscoveryError::FileContent { path: path.clone(), source };
    let mut config = kubeconfig::read(&text).map_err(content)?;
    // Paths in a kubeconfig are meant from where it is.
    config.make_absolute(path.parent().unwrap_or(Path::new("/")));
    let mut info = ClusterInfo::of(&config).map_err(content)?;
    let user = user(&config).map_err(|problem| content(KubeconfigError::Read(problem)))?;
    let tries = Tries { deadline: Instant::now() + limit, limit, waiting };
    let fetched = tries
        .repeat(|| async {
            match source.cluster_info(&info.server, Some(&info.ca)).await {
                Ok(data) => Ok(Some(data)),
                // Not every cluster publishes it, and the file says all there is to know.
                Err(FetchError::Forbidden | FetchError::Missing) => Ok(None),
                Err(error) => Err(error.at(&info.server)),
            }
        })
        .await?;
    if let Some(text) = fetched.and_then(|mut data| data.remove(KUBECONFIG)) {
        let server = info.server.clone();
        let fresh = ClusterInfo::parse(&text).map_err(|source| DiscoveryError::Kubeconfig { server, source })?;
        info = ClusterInfo { tls_server_name: info.tls_server_name, ..fresh };
    }
    Ok(Handed { info, user })
}

/// The user of the current context, else the first, with what it shows to the server.
fn user(config: &Kubeconfig) -> Result<Option<(String, Value)>, Problem> {
    let Some((name, user)) = config.user() else { return Ok(None) };
    let value = user_fields(user)?;
    let has_any = value.as_object().is_some_and(|fields| !fields.is_empty());
    Ok(has_any.then(|| (name.to_owned(), value)))
}
