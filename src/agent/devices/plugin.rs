//! A device plugin, as the kubelet's client of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::messages::*;
use super::state::Ids;

/// How long a plugin that registers has to be there.
const DIAL: Duration = Duration::from_secs(10);
/// How often it is tried: it may listen a moment after it has registered.
const TRY: Duration = Duration::from_millis(100);
/// How long it has before the start of a container.
const PRE_START: Duration = Duration::from_secs(30);

/// A plugin that has registered.
#[derive(Debug)]
pub struct Plugin {
    resource: String,
    channel: Channel,
    ended: CancellationToken,
}

impl Plugin {
    /// Connects to the socket of a plugin of this resource.
    ///
    /// # Errors
    /// It is not there, in the kubelet's words.
    pub async fn connect(resource: &str, socket: &Path) -> Result<Self, String> {
        let dialled = timeout(DIAL, async {
            loop {
                // A name that the kernel does not know is no path of an URL's either: hence the connector.
                let path = PathBuf::from(socket);
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                match Endpoint::from_static("http://localhost").connect_with_connector(connector).await {
                    Ok(channel) => return channel,
                    Err(_) => sleep(TRY).await,
                }
            }
        });
        let late = |_| "failed to dial device plugin: context deadline exceeded".to_owned();
        let channel = dialled.await.map_err(late)?;
        Ok(Self { resource: resource.to_owned(), channel, ended: CancellationToken::new() })
    }

    /// Ends when the plugin has been replaced, or its watch has ended.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// What it wants to be asked.
    ///
    /// # Errors
    /// In the kubelet's words, like those of all that follows.
    pub async fn options(&self) -> Result<DevicePluginOptions, String> {
        let asked = self.ask("GetDevicePluginOptions", Empty {}).await;
        asked.map_err(|status| format!("failed to get device plugin options: {}", in_words(&status)))
    }

    /// Its devices, each time they change.
    pub async fn list_and_watch(&self) -> Result<Streaming<ListAndWatchResponse>, String> {
        let watched = async {
            let (mut client, path) = self.client("ListAndWatch").await?;
            let codec = ProstCodec::<Empty, ListAndWatchResponse>::default();
            client.server_streaming(Request::new(Empty {}), path, codec).await
        };
        watched.await.map(tonic::Response::into_inner).map_err(|status| in_words(&status))
    }

    /// Prepares devices for a container. It takes as long as it takes, as with the kubelet: some devices are loaded first.
    /// A plugin that ends meanwhile has failed.
    pub async fn allocate(&self, devices: &Ids) -> Result<ContainerAllocateResponse, String> {
        let one = ContainerAllocateRequest { devices_ids: devices.iter().cloned().collect() };
        let asked = self.ask_while_there("Allocate", AllocateRequest { container_requests: vec![one] });
        let answer: AllocateResponse = asked.await?;
        let first = answer.container_responses.into_iter().next();
        first.ok_or_else(|| "no containers return in allocation response".to_owned())
    }

    /// Which of the devices it prefers for a container that asks for so many.
    pub async fn preferred(&self, available: Ids, must_include: Ids, count: usize) -> Result<Ids, String> {
        let one = ContainerPreferredAllocationRequest {
            available_device_ids: available.into_iter().collect(),
            must_include_device_ids: must_include.into_iter().collect(),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let question = PreferredAllocationRequest { container_requests: vec![one] };
        let answer: Result<PreferredAllocationResponse, _> =
            self.ask_while_there("GetPreferredAllocation", question).await;
        let answer =
            answer.map_err(|why| format!("device plugin GetPreferredAllocation rpc failed with err: {why}"))?;
        let first = answer.container_responses.into_iter().next();
        Ok(first.map(|one| one.device_ids.into_iter().collect()).unwrap_or_default())
    }

    /// Tells it that a container with these devices is about to start.
    pub async fn pre_start(&self, devices: &Ids) -> Result<(), String> {
        let question = PreStartContainerRequest { devices_ids: devices.iter().cloned().collect() };
        let asked = timeout(PRE_START, self.ask_while_there::<_, Empty>("PreStartContainer", question)).await;
        let late = || in_words(&Status::deadline_exceeded("context deadline exceeded"));
        let answer = asked.unwrap_or_else(|_| Err(late()));
        answer.map(drop).map_err(|why| format!("device plugin PreStartContainer rpc failed with err: {why}"))
    }

    async fn ask_while_there<Q, A>(&self, method: &str, question: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let stopped = || format!("endpoint {} has been stopped", self.resource);
        let answer = self.ended.run_until_cancelled(self.ask(method, question)).await.ok_or_else(stopped)?;
        answer.map_err(|status| in_words(&status))
    }

    async fn ask<Q, A>(&self, method: &str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (mut client, path) = self.client(method).await?;
        let answer = client.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    async fn client(&self, method: &str) -> Result<(tonic::client::Grpc<Channel>, PathAndQuery), Status> {
        let path =
            PathAndQuery::try_from(format!("{PLUGIN}{method}")).map_err(|error| Status::internal(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok((client, path))
    }
}

/// An error as Go's gRPC writes it.
pub fn in_words(status: &Status) -> String {
    let code = match status.code() {
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}
