//! A lease, read and written with the kubeconfig of the component whose it is.

use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Client, ResourceExt};

use super::decide::{self, Left};
use crate::agent::runs::Run;
use crate::pki::client::{self, ReadError};

/// How long one try may take in all.
const LIMIT: Duration = Duration::from_secs(5);
/// An API server of this machine answers at once or is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a lease is read again that was written to meanwhile: what was under way when its holder ended may still come.
const CONFLICTS: usize = 3;
/// How the agent calls itself towards the API server.
const AGENT: &str = concat!("kubeboot/v", env!("CARGO_PKG_VERSION"), " leader-lease");

/// What has become of a lease.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is free now; this was its holder.
    Released(String),
    /// It was left as it is.
    Left(Left),
    /// There is none.
    Absent,
}

/// Why nothing is known of a lease, or it could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The component's kubeconfig is of no use.
    #[error("cannot use {path}")]
    Kubeconfig {
        /// Which.
        path: String,
        /// What is wrong.
        #[source]
        source: Box<ReadError>,
    },
    /// The API server could not be asked, or refuses.
    #[error("the API server cannot be asked or refuses")]
    Call(#[source] Box<kube::Error>),
    /// It did not answer in time.
    #[error("the API server did not answer within {} s", LIMIT.as_secs())]
    Timeout,
    /// Another one writes to it each time.
    #[error("the lease was written to each time it was to be released")]
    Contended,
}

/// Gives the lease free that a run has left.
pub async fn release(run: &Run) -> Result<Outcome, LeaseError> {
    let work = async {
        let leases = leases(run).await?;
        for _ in 0..CONFLICTS {
            match attempt(&leases, run).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                result => return result.map_err(|error| LeaseError::Call(error.into())),
            }
        }
        Err(LeaseError::Contended)
    };
    tokio::time::timeout(LIMIT, work).await.unwrap_or(Err(LeaseError::Timeout))
}

/// Whole objects, so that no field is lost that this program does not know.
async fn leases(run: &Run) -> Result<Api<DynamicObject>, LeaseError> {
    let path = &run.election.kubeconfig;
    let fail = |source: ReadError| LeaseError::Kubeconfig { path: path.display().to_string(), source: source.into() };
    let kubeconfig = client::read(&[path]).map_err(fail)?;
    let mut config = client::settings(&kubeconfig).await.map_err(fail)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.proxy_url = None;
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let client: Client = client::connect(config).map_err(|error| LeaseError::Call(error.into()))?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"));
    Ok(Api::namespaced_with(client, &run.election.namespace, &resource))
}

async fn attempt(leases: &Api<DynamicObject>, run: &Run) -> Result<Outcome, kube::Error> {
    let Some(mut lease) = leases.get_opt(&run.election.lease).await? else { return Ok(Outcome::Absent) };
    let holder = lease.data["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    if let Err(why) = decide::free(&mut lease.data, run) {
        return Ok(Outcome::Left(why));
    }
    leases.replace(&lease.name_any(), &PostParams::default(), &lease).await?;
    Ok(Outcome::Released(holder))
}
