//! The cluster, asked of the first member that answers.

use http::Uri;

use crate::error::chain;
use crate::etcd::{Connector, EtcdError, MemberRecord, Server, Status};

/// A cluster of etcd, known by some of its members.
pub struct Cluster<'a> {
    /// Who connects.
    pub connector: &'a dyn Connector,
    /// Client URLs of members, asked in this order.
    pub endpoints: &'a [String],
}

/// The member that has answered.
pub struct Asked {
    /// At which of the endpoints.
    pub endpoint: String,
    /// The member.
    pub server: Box<dyn Server>,
    /// What it says of itself.
    pub status: Status,
}

/// The members of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// All of them, by name.
    pub members: Vec<MemberRecord>,
    /// Whether a quorum says so. Else one member does, as far as it knows.
    pub agreed: bool,
}

/// Why the cluster says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No member answers.
    #[error(
        "no member of etcd answers: {}; see that etcd runs (`kubeboot status`), or name another member with --endpoints",
        tried.iter().map(|(endpoint, why)| format!("{endpoint}: {why}")).collect::<Vec<_>>().join("; ")
    )]
    NoAnswer {
        /// Each that was asked, and why there is no answer.
        tried: Vec<(String, String)>,
    },
    /// It answers, and does not say who the members are.
    #[error("the members of etcd are not known")]
    Members(#[source] EtcdError),
}

/// The client URL of what was typed: `10.0.0.5:2379`, or the URL itself.
///
/// # Errors
/// What is wrong with it.
pub fn endpoint(text: &str) -> Result<String, String> {
    let url = match text.split_once("://") {
        None => format!("https://{text}"),
        Some(("https", _)) => text.trim_end_matches('/').to_owned(),
        Some(_) => return Err("members are asked by TLS: https://ADDRESS:PORT, or ADDRESS:PORT".to_owned()),
    };
    match url.parse::<Uri>() {
        Ok(uri) if uri.port_u16().is_some() && uri.path() == "/" && uri.query().is_none() => Ok(url),
        _ => Err("expected https://ADDRESS:PORT, or ADDRESS:PORT".to_owned()),
    }
}

impl Cluster<'_> {
    /// The first member that answers.
    ///
    /// # Errors
    /// [`ClusterError::NoAnswer`].
    pub async fn ask(&self) -> Result<Asked, ClusterError> {
        let mut tried = Vec::new();
        for endpoint in self.endpoints {
            let endpoint = endpoint.clone();
            let Some(server) = self.connector.connect(&endpoint) else {
                tried.push((endpoint, "this is no URL of a member".to_owned()));
                continue;
            };
            match server.status().await {
                Ok(status) => return Ok(Asked { endpoint, server, status }),
                Err(error) => tried.push((endpoint, chain(&error))),
            }
        }
        Err(ClusterError::NoAnswer { tried })
    }

    /// The members; where there is no quorum, as the first that answers knows them.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn members(&self) -> Result<Members, ClusterError> {
        self.ask().await?.members().await
    }
}

impl Asked {
    /// The members; where there is no quorum, as this one knows them.
    ///
    /// # Errors
    /// [`ClusterError::Members`].
    pub async fn members(&self) -> Result<Members, ClusterError> {
        let agreed = match self.status.leader {
            // A quorum would be waited for.
            None => None,
            Some(_) => self.server.list().await.ok(),
        };
        let (mut members, agreed) = match agreed {
            Some(members) => (members, true),
            None => (self.server.list_local().await.map_err(ClusterError::Members)?, false),
        };
        members.sort_by(|a, b| (a.name.is_none(), &a.name, a.id).cmp(&(b.name.is_none(), &b.name, b.id)));
        Ok(Members { members, agreed })
    }
}
