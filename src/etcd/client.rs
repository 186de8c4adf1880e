//! A member of etcd over gRPC, with the client certificate that kubeadm makes for its health checks.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::proto::{DowngradeRequest, DowngradeResponse, StatusRequest, StatusResponse};
use super::{Downgrade, Etcd, EtcdError, Minor, Status};
use crate::config::ClusterSpec;
use crate::config::spec::last_arg;
use crate::host::Paths;
use crate::pki::verifier::Verifier;

/// How long a question may take: a member on this machine answers in milliseconds or is not there.
const LIMIT: Duration = Duration::from_secs(3);

/// Where kubeadm's etcd listens for clients.
const PORT: u16 = 2379;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A member at its address. The files are read for each question: an upgrade renews them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The host, as the server's certificate has it: `127.0.0.1`.
    pub host: String,
    /// The port for clients.
    pub port: u16,
    /// The authority of etcd's certificates, on the host.
    pub ca: PathBuf,
    /// The client's certificate, on the host.
    pub certificate: PathBuf,
    /// Its key, on the host.
    pub key: PathBuf,
}

impl Member {
    /// The etcd of the node that `spec` describes, at the first address at which it listens for clients.
    pub fn of(spec: &ClusterSpec, paths: &Paths) -> Self {
        let given = spec.etcd.local().and_then(|local| {
            let urls = last_arg(&local.component.extra_args, "listen-client-urls")?;
            let url: Uri = urls.split(',').next()?.parse().ok()?;
            Some((url.host()?.trim_matches(['[', ']']).to_owned(), url.port_u16()?))
        });
        let (host, port) = given.unwrap_or_else(|| (spec.loopback().to_owned(), PORT));
        let file = |name: &str| paths.on_host(spec.certificates_dir.join("etcd").join(name));
        let (certificate, key) = (file("healthcheck-client.crt"), file("healthcheck-client.key"));
        Self { host, port, ca: file("ca.crt"), certificate, key }
    }

    fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn unreachable(&self, source: Cause) -> EtcdError {
        EtcdError::Unreachable { address: self.address(), source }
    }

    fn tls(&self) -> Result<ClientConfig, Cause> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
        let roots = CertificateDer::pem_slice_iter(&read(&self.ca)?).collect::<Result<Vec<_>, _>>()?;
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)?;
        let mut config = Verifier::new(&roots)?.client_config(Some((chain, key)))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    async fn channel(&self) -> Result<Channel, Cause> {
        let connector = Connector {
            address: self.address(),
            name: ServerName::try_from(self.host.clone())?,
            tls: TlsConnector::from(Arc::new(self.tls()?)),
        };
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address()))?;
        Ok(endpoint.connect_with_connector(connector).await?)
    }

    async fn ask<Q, A>(&self, path: &'static str, what: &'static str, question: Q) -> Result<A, EtcdError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let asked = async {
            let channel = self.channel().await.map_err(|error| self.unreachable(error))?;
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.map_err(|error| self.unreachable(error.into()))?;
            let path = PathAndQuery::from_static(path);
            let answer = client.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
                Code::Unavailable | Code::DeadlineExceeded => self.unreachable(status.into()),
                // What etcd says while another job of the kind is in progress.
                code => EtcdError::Refused {
                    what,
                    message: status.message().to_owned(),
                    busy: code == Code::FailedPrecondition,
                },
            })
        };
        let late = |_| self.unreachable(format!("no answer within {} s", LIMIT.as_secs()).into());
        tokio::time::timeout(LIMIT, asked).await.map_err(late)?
    }
}

#[async_trait]
impl Etcd for Member {
    async fn status(&self) -> Result<Status, EtcdError> {
        let path = "/etcdserverpb.Maintenance/Status";
        let said: StatusResponse = self.ask(path, "tell its status", StatusRequest {}).await?;
        Ok(Status { storage: Minor::of(&said.storage_version), version: said.version, has_leader: said.leader != 0 })
    }

    async fn downgrade(&self, action: Downgrade, to: Minor) -> Result<(), EtcdError> {
        let what = match action {
            Downgrade::Validate | Downgrade::Enable => "downgrade its data",
            Downgrade::Cancel => "cancel the downgrade of its data",
        };
        let question = DowngradeRequest { action: action.into(), version: to.target() };
        let path = "/etcdserverpb.Maintenance/Downgrade";
        self.ask(path, what, question).await.map(|_: DowngradeResponse| ())
    }
}

/// TLS with a client certificate under tonic's channel.
#[derive(Clone)]
struct Connector {
    address: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, name, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}
