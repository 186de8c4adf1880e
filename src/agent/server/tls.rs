//! TLS of the agent's own API: which certificate it serves with, and what its clients present.

mod own_certificate;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::auth::Presented;
use super::http::Transport;
use crate::agent::context::Context;
use crate::agent::options::ServerOptions;
use crate::error::chain;
use crate::pki::inspect::public_key;

/// How often files are looked at, and the time left of a certificate.
const LOOK: Duration = Duration::from_secs(60);
/// How long a client that has not been let in may take to its first request, the handshake included, and may take nothing
/// of what is sent to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the certificate cannot be used.
    #[error("{}: {problem}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A cipher suite that there is not.
    #[error("tlsCipherSuites: there is no {0}; there are {1}")]
    Suite(String, String),
    /// These settings do not fit together.
    #[error("these TLS settings do not fit together")]
    Settings(#[source] rustls::Error),
}

/// The certificate that is served with now.
#[derive(Debug, Default)]
pub struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    /// From now on this one is served with.
    pub fn set(&self, certificate: Option<Arc<CertifiedKey>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lets a client present any certificate whose key it has. Whether it is good for anything is asked with each request.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

/// The public key of a certificate that rustls does not read, as those of X.509 version 1 (`openssl x509 -req` makes them
/// without further words), in both its forms; None of any other. No client is let in with it, for
/// [`auth`](super::auth) reads it no more than rustls does. But it is no reason to end a handshake that a kubelet would
/// go through with, if the client has the key: it is answered like any client without an identity.
fn unread_key(certificate: &CertificateDer<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    if ParsedCertificate::try_from(certificate).is_ok() { None } else { public_key(certificate) }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let Some((_, key)) = unread_key(certificate) else {
            return rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0);
        };
        let schemes = self.0.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
        let good = { schemes }
            .flat_map(|(_, algorithms)| *algorithms)
            .any(|algorithm| algorithm.verify_signature(&key, message, signature.signature()).is_ok());
        match good {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match unread_key(certificate) {
            Some((info, _)) => verify_tls13_signature_with_raw_key(message, &info.into(), signature, &self.0),
            None => rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Where clients come in.
#[derive(Clone)]
pub struct TlsTransport(TlsAcceptor);

impl TlsTransport {
    /// One that serves with `served`.
    pub fn new(options: &ServerOptions, served: Arc<Served>) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(&options.cipher_suites)?);
        let verifier = Arc::new(AnyClient(provider.signature_verification_algorithms));
        let versions: &[_] = if options.only_tls13 { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(TlsError::Settings)?;
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(served);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is resumed would keep a client certificate good that is not any more.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Only the suites that are named, by Go's names, which those of TLS 1.3 have no choice of.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let go_name = |suite: &rustls::SupportedCipherSuite| {
        format!("{:?}", suite.suite()).replace("TLS13_", "TLS_").trim_end_matches("_SHA256_SHA256").to_owned()
    };
    // Go has two names for the suites of ChaCha20.
    let plain = |name: &str| match name.strip_suffix("_POLY1305") {
        Some(_) => format!("{name}_SHA256"),
        None => name.to_owned(),
    };
    let known: Vec<String> = provider.cipher_suites.iter().map(go_name).collect();
    let wanted: Vec<String> = names.iter().map(|name| plain(name)).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        return Err(TlsError::Suite(unknown.clone(), known.join(", ")));
    }
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || wanted.contains(&go_name(suite)));
    Ok(provider)
}

impl Transport for TlsTransport {
    type Io = TlsStream<TcpStream>;
    type Peer = Presented;
    const PATIENCE: Duration = PATIENCE;
    const FIRST_REQUEST: Option<Duration> = Some(PATIENCE);

    async fn open(&self, stream: TcpStream) -> io::Result<(Self::Io, Presented)> {
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
        let _ = rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30));
        let _ = rustix::net::sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(15));
        let stream = self.0.accept(stream).await?;
        let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let presented = presented.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok((stream, presented))
    }
}

/// Reads a certificate, with what leads to its authority, and its key.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let fault = |file: &Path, problem: String| TlsError::File { file: file.to_owned(), problem };
    let read = |file: &Path| std::fs::read(file).map_err(|error| fault(file, error.to_string()));
    let pem = read(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| fault(certificate, error.to_string()))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| fault(key, error.to_string()))?;
    let made = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider());
    made.map(Arc::new).map_err(|error| fault(certificate, error.to_string()))
}

/// Sets the certificate to begin with.
///
/// # Errors
/// That of the options cannot be used. One of the agent's own that cannot be made is waited for.
pub fn begin(context: &Context, served: &Served) -> Result<(), TlsError> {
    if let Some((certificate, key)) = &context.options.server.certificate {
        served.set(Some(load(certificate, key)?));
    }
    Ok(())
}

/// Keeps the certificate up to date until the agent ends.
pub async fn keep(context: Arc<Context>, served: Arc<Served>) {
    if let Some((certificate, key)) = &context.options.server.certificate {
        follow_files(certificate, key, &served).await;
    } else if context.options.node.server_tls_bootstrap {
        let mut certificates = context.serving.certificates();
        loop {
            served.set(certificates.borrow_and_update().clone());
            if certificates.changed().await.is_err() {
                return;
            }
        }
    } else {
        loop {
            let for_whom = own_certificate::Subject::of(&context);
            let dir = context.options.node.cert_dir.clone();
            match tokio::task::spawn_blocking(move || own_certificate::ensure(&dir, &for_whom)).await {
                Ok(Ok(made)) => served.set(Some(made)),
                Ok(Err(error)) => warn!(error = chain(&error), "cannot make a certificate to serve with"),
                Err(error) => warn!(%error, "cannot make a certificate to serve with"),
            }
            // Long before it expires.
            tokio::time::sleep(LOOK.saturating_mul(60)).await;
        }
    }
}

async fn follow_files(certificate: &Path, key: &Path, served: &Served) {
    let mut known = stamps(certificate, key);
    loop {
        tokio::time::sleep(LOOK).await;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let look = move || {
            let now = stamps(&certificate, &key);
            (now != known).then(|| (now, load(&certificate, &key), certificate))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Some((now, Ok(read), file))) => {
                info!(file = %file.display(), "serving with a new certificate");
                served.set(Some(read));
                known = now;
            }
            // The two are not replaced at once: the next look finds both.
            Ok(Some((_, Err(error), _))) => warn!(error = chain(&error), "cannot use the new certificate"),
            Ok(None) | Err(_) => {}
        }
    }
}

/// When the two files were written.
fn stamps(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok())
}

#[cfg(test)]
mod v1_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_of_tls_1_2_are_chosen_by_gos_names() {
        let chosen = |names: &[&str]| {
            provider(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
                .map(|provider| provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count())
        };
        assert!(chosen(&[]).unwrap() > 2);
        let both = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"];
        assert_eq!(chosen(&both).unwrap(), 2);
        let error = chosen(&["TLS_RSA_WITH_RC4_128_SHA"]).unwrap_err().to_string();
        assert!(error.contains("there is no TLS_RSA_WITH_RC4_128_SHA; there are TLS_"), "{error}");
    }
}
