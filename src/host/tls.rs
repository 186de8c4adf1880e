//! TLS clients that look at a server rather than trust it: no certificate is verified, but the server has to hold
//! the key of the certificate it shows.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A configuration that takes any server.
///
/// # Errors
/// When the provider supports none of the TLS versions, which the one that is linked does.
pub fn any_server() -> Result<ClientConfig, Error> {
    Ok(watched()?.0)
}

fn watched() -> Result<(ClientConfig, Arc<AnyChain>), Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyChain { provider: Arc::clone(&provider), first: OnceLock::new() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    // Tickets are kept by host name, and all components share one: they would only throw each other's out.
    config.resumption = Resumption::disabled();
    Ok((config, verifier))
}

/// The certificate (DER) that the server at `address` shows, within `limit`. That it then wants one of the client's does
/// not matter.
///
/// # Errors
/// What the connection said where no certificate was shown.
pub async fn served(address: SocketAddr, limit: Duration) -> io::Result<Vec<u8>> {
    let (config, verifier) = watched().map_err(io::Error::other)?;
    let shake = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), stream).await.map(drop)
    };
    let shaken = tokio::time::timeout(limit, shake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match (verifier.first.get(), shaken) {
        (Some(certificate), _) => Ok(certificate.clone()),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::Error::other("the server has shown no certificate")),
    }
}

#[derive(Debug)]
struct AnyChain {
    provider: Arc<CryptoProvider>,
    /// The first certificate it was shown.
    first: OnceLock<Vec<u8>>,
}

impl ServerCertVerifier for AnyChain {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.first.get_or_init(|| shown.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
