//! Calls over the socket: one channel that comes back by itself, and what an error means.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::error::deepest;
use crate::runtime::{Result, RuntimeError};

/// A runtime on this machine answers at once or is not there.
pub const CONNECT: Duration = Duration::from_secs(5);
/// How long a call may take (the kubelet's `runtimeRequestTimeout`); stopping has its grace on top, a pull no limit.
pub const CALL: Duration = Duration::from_secs(120);
/// containerd's own limit of what it sends.
const MAX_ANSWER: usize = 16 << 20;
/// containerd's namespace of everything made by CRI.
const NAMESPACE: &str = "k8s.io";

/// A socket at which somebody speaks gRPC.
#[derive(Debug, Clone)]
pub struct Rpc {
    address: String,
    channel: Channel,
}

impl Rpc {
    /// Points at a `unix://` URL. Nothing is connected before the first call, and again after the other side was away.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(address: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|error| RuntimeError::Unreachable { address: address.to_owned(), source: error.into() })?;
        let channel = endpoint.connect_timeout(CONNECT).connect_lazy();
        Ok(Self { address: address.to_owned(), channel })
    }

    /// The URL.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks and waits for the answer, for `limit` at most.
    pub async fn unary<Q, A>(&self, path: &str, question: Q, limit: Option<Duration>) -> std::result::Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let asked = async {
            let (mut client, path) = self.client(path).await?;
            let answer = client.unary(request(question), path, ProstCodec::<Q, A>::default()).await?;
            Ok(answer.into_inner())
        };
        match limit {
            Some(limit) => {
                let late = |_| Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()));
                tokio::time::timeout(limit, asked).await.map_err(late)?
            }
            None => asked.await,
        }
    }

    /// Asks for a stream of answers.
    pub async fn stream<Q, A>(&self, path: &str, question: Q) -> std::result::Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + Send + 'static,
    {
        let (mut client, path) = self.client(path).await?;
        let answers = client.server_streaming(request(question), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answers.into_inner())
    }

    async fn client(&self, path: &str) -> std::result::Result<(tonic::client::Grpc<Channel>, PathAndQuery), Status> {
        let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok((client, path))
    }

    /// Turns a status into the trait's error: `call` is what was being done, `what` the thing it was done to.
    pub fn error(&self, call: &str, what: &str, status: Status) -> RuntimeError {
        match status.code() {
            Code::NotFound => RuntimeError::NotFound { what: what.to_owned() },
            Code::AlreadyExists => RuntimeError::Conflict { message: status.message().to_owned() },
            Code::DeadlineExceeded => RuntimeError::Timeout { call: call.to_owned(), limit: CALL },
            _ if is_away(&status) => {
                RuntimeError::Unreachable { address: self.address.clone(), source: cause(&status) }
            }
            _ => RuntimeError::Refused { call: call.to_owned(), message: words(&status).to_owned() },
        }
    }
}

/// Whether no one has heard the call, or the other side went away over it.
fn is_away(status: &Status) -> bool {
    let broken = || std::error::Error::source(status).is_some();
    status.code() == Code::Unavailable || (matches!(status.code(), Code::Unknown | Code::Internal) && broken())
}

/// What went wrong, without the prefix that Go's gRPC puts before an error of the other side's.
pub fn words(status: &Status) -> &str {
    let message = status.message();
    message.split_once(" desc = ").filter(|_| message.starts_with("rpc error: ")).map_or(message, |(_, words)| words)
}

/// Why no one was reached: the innermost cause alone, for each one around it repeats what is in it.
pub fn cause(status: &Status) -> Box<dyn std::error::Error + Send + Sync> {
    let outermost = std::error::Error::source(status);
    outermost.map_or_else(|| words(status).to_owned(), deepest).into()
}

fn request<Q>(question: Q) -> Request<Q> {
    let mut request = Request::new(question);
    // CRI does not look at it; containerd's own services want it.
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}
