//! Servers that Go's TLS clients take and webpki does not: one whose certificate is that of a CA, as `openssl req -x509`
//! makes it and every self-signed certificate is, and one whose IPv4 address stands in it in 16 bytes.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::inspect::Certificate;
use super::table::{San, Usage};

/// Takes a server that webpki takes, or that satisfies what Go asks: a chain of signatures to a trusted certificate (or
/// the server's is one itself), validity, `serverAuth`, and the server's name.
#[derive(Debug)]
pub struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    /// The same in DER.
    trusted: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Trusts the certificates `roots`, in DER.
    ///
    /// # Errors
    /// Certificates that are none, or no certificate at all.
    pub fn new(roots: &[impl AsRef<[u8]>]) -> Result<Self, Error> {
        let trusted: Vec<CertificateDer<'static>> =
            roots.iter().map(|root| CertificateDer::from(root.as_ref().to_vec())).collect();
        let mut store = RootCertStore::empty();
        for root in &trusted {
            store.add(root.clone())?;
        }
        Self::of(store, trusted)
    }

    /// Trusts what this machine trusts.
    ///
    /// # Errors
    /// No certificate that can be used.
    pub fn of_machine() -> Result<Self, Error> {
        let trusted = rustls_native_certs::load_native_certs().certs;
        let mut store = RootCertStore::empty();
        // Those of long ago that cannot be read are passed over.
        store.add_parsable_certificates(trusted.iter().cloned());
        Self::of(store, trusted)
    }

    fn of(store: RootCertStore, trusted: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let (store, provider) = (Arc::new(store), Arc::new(aws_lc_rs::default_provider()));
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider));
        let webpki = builder.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { webpki, provider, roots: store, trusted })
    }

    /// The settings of a client that asks this verifier, with a certificate and its key to show if there are any.
    ///
    /// # Errors
    /// A certificate and a key that are no pair.
    pub fn client_config(self, identity: Option<Identity>) -> Result<ClientConfig, Error> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self));
        match identity {
            Some((chain, key)) => config.with_client_auth_cert(chain, key),
            None => Ok(config.with_no_client_auth()),
        }
    }

    /// Whether Go would take the server.
    fn takes(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let (Ok(own), Ok(parsed)) = (Certificate::parse(shown), ParsedCertificate::try_from(shown)) else {
            return false;
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let is_trusted = if own.is_ca() {
            self.chains(&own, intermediates, now)
        } else {
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms).is_ok()
        };
        is_trusted && (verify_server_name(&parsed, name).is_ok() || has_address(&own, name))
    }

    /// Whether a CA's certificate is a trusted one, or signed by one or by intermediates below one, all of them valid
    /// for servers. Where names are constrained, webpki's word is the last.
    fn chains(&self, own: &Certificate, intermediates: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some(now) = i64::try_from(now.as_secs()).ok().and_then(|now| Timestamp::from_second(now).ok()) else {
            return false;
        };
        let fits = |one: &Certificate| {
            (one.not_before..=one.not_after).contains(&now)
                && !one.demands_the_unknown()
                && one.usages.as_ref().is_none_or(|usages| usages.contains(&Usage::Server))
        };
        let signs = |one: &Certificate| fits(one) && one.is_authority && !one.constrains_names();
        if !fits(own) {
            return false;
        }
        let trusted: Vec<Certificate> = self.trusted.iter().filter_map(|root| Certificate::parse(root).ok()).collect();
        let mut last = own.clone();
        let mut below: Vec<Certificate> = intermediates.iter().filter_map(|der| Certificate::parse(der).ok()).collect();
        loop {
            if trusted.contains(&last) || trusted.iter().any(|root| signs(root) && last.is_signed_by(root)) {
                return true;
            }
            let Some(next) = below.iter().position(|next| signs(next) && last.is_signed_by(next)) else { return false };
            last = below.swap_remove(next);
        }
    }
}

/// A chain of certificates, and the key of the first.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Whether a certificate has the address, in however many bytes.
fn has_address(own: &Certificate, name: &ServerName<'_>) -> bool {
    let ServerName::IpAddress(address) = name else { return false };
    own.sans.contains(&San::Ip(IpAddr::from(*address).to_canonical()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.webpki.verify_server_cert(shown, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(_)) if self.takes(shown, intermediates, name, now) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
