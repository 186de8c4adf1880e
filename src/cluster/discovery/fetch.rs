//! The thin edge: an API server, asked without credentials.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config};
use rustls::CertificateError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{Data, FetchError, Source};
use crate::cluster::client::{CONNECT_TIMEOUT, READ_TIMEOUT, refused_certificate};
use crate::pki::client::connect;

/// A real API server.
pub struct ApiServer;

#[async_trait]
impl Source for ApiServer {
    async fn cluster_info(&self, server: &str, ca: Option<&[u8]>) -> Result<Data, FetchError> {
        let maps: Api<ConfigMap> = Api::namespaced(client(server, ca)?, "kube-public");
        match maps.get("cluster-info").await {
            Ok(map) => Ok(map.data.unwrap_or_default()),
            Err(error) => Err(fetch_error(error)),
        }
    }
}

fn client(server: &str, ca: Option<&[u8]>) -> Result<Client, FetchError> {
    let url = server.parse().map_err(|error: http::uri::InvalidUri| FetchError::Client(error.into()))?;
    let mut config = Config::new(url);
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // Tries are made where they are counted against the deadline.
    config.default_retry = false;
    match ca {
        // Whichever server it is: the signature and the pins will tell.
        None => config.accept_invalid_certs = true,
        Some(pem) => {
            let certificates = CertificateDer::pem_slice_iter(pem).map(|der| der.map(|der| der.to_vec()));
            config.root_cert = Some(certificates.collect::<Result<_, _>>().map_err(|e| FetchError::Client(e.into()))?);
        }
    }
    connect(config).map_err(|error| FetchError::Client(error.into()))
}

fn fetch_error(error: kube::Error) -> FetchError {
    match &error {
        kube::Error::Api(status) => match status.code {
            404 => FetchError::Missing,
            401 | 403 => FetchError::Forbidden,
            code => FetchError::Refused { code, message: status.message.clone() },
        },
        error_ => match refused_certificate(error_) {
            Some(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => FetchError::Clock(error.into()),
            Some(_) => FetchError::Stranger(error.into()),
            None => FetchError::Unreachable(error.into()),
        },
    }
}
