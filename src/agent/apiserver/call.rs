//! One request to the API server, with a limit.

use std::future::Future;
use std::time::Duration;

/// Longer than an API server takes for any single write, even while etcd elects.
const LIMIT: Duration = Duration::from_secs(15);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It was not answered in time.
    #[error("the API server did not answer within {} s", LIMIT.as_secs())]
    Timeout,
    /// It could not be sent, or was refused.
    #[error("the API server cannot be asked or refuses")]
    Failed(#[source] Box<kube::Error>),
}

impl CallError {
    /// The server's code, if it has answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Failed(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Timeout => None,
        }
    }
}

/// What `request` is answered.
///
/// # Errors
/// When it is not, or not in time.
pub async fn within_limit<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(answer) => answer.map_err(|error| CallError::Failed(Box::new(error))),
        Err(_) => Err(CallError::Timeout),
    }
}
