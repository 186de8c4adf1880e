//! A client with a certificate of X.509 version 1, which rustls does not read.

use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey};
use rustls::SupportedProtocolVersion;
use rustls::client::ResolvesClientCert;
use rustls_pki_types::ServerName;
use tokio::net::TcpListener;

use super::*;
use crate::agent::server::auth::{ClientAuthorities, User};
use crate::pki::serving_pair;
use crate::testing::tls::AnyServer;

/// Presents a certificate whatever rustls thinks of it.
#[derive(Debug)]
struct Presenter(Arc<CertifiedKey>);

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A DER value: its tag, the whole of it, and what is in it.
type Value<'a> = (u8, &'a [u8], &'a [u8]);

/// The first value, and what is behind it.
fn value(der: &[u8]) -> (Value<'_>, &[u8]) {
    let (head, length) = match der[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        long => panic!("{long}: no certificate is so long"),
    };
    let (whole, rest) = der.split_at(head + length);
    ((der[0], whole, &whole[head..]), rest)
}

fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], length.as_slice(), content].concat()
}

/// The same certificate in version 1: without its version and its extensions, signed again.
fn version_1(certificate: &CertificateDer<'_>, authority: &KeyPair) -> CertificateDer<'static> {
    let ((_, _, content), _) = value(certificate);
    let ((_, _, mut fields), rest) = value(content);
    let ((_, algorithm, _), _) = value(rest);
    let mut kept = Vec::new();
    while !fields.is_empty() {
        let ((tag, whole, _), rest) = value(fields);
        if ![0xa0, 0xa3].contains(&tag) {
            kept.extend_from_slice(whole);
        }
        fields = rest;
    }
    let body = encoded(0x30, &kept);
    let signature = encoded(0x03, &[&[0], authority.sign(&body).unwrap().as_slice()].concat());
    encoded(0x30, &[body, algorithm.to_vec(), signature].concat()).into()
}

struct World {
    authority: (CertificateParams, KeyPair),
    key: KeyPair,
}

impl World {
    fn new() -> Self {
        let make = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        Self { authority: (params, make()), key: make() }
    }

    fn client(&self) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        let issuer = Issuer::from_params(&self.authority.0, &self.authority.1);
        params.signed_by(&self.key, &issuer).unwrap().der().clone()
    }

    /// Whose the authority says a certificate is.
    fn user(&self, certificate: &CertificateDer<'static>) -> Result<User, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let pem = self.authority.0.self_signed(&self.authority.1).unwrap().pem();
        crate::host::fs::write_file(&file, pem.as_bytes(), 0o644).unwrap();
        ClientAuthorities::new(&file).user(std::slice::from_ref(certificate))
    }
}

/// What the server sees of a client with this certificate and this key.
async fn opened(
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
    version: &'static SupportedProtocolVersion,
) -> io::Result<Presented> {
    let pair = serving_pair("n1", vec![], Duration::from_secs(3600), jiff::Timestamp::now()).unwrap();
    let own = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
    let private = PrivateKeyDer::from_pem_slice(&pair.key).unwrap();
    let provider = aws_lc_rs::default_provider();
    let served = Arc::new(Served::default());
    served.set(Some(Arc::new(CertifiedKey::from_der(vec![own], private, &provider).unwrap())));
    let transport = TlsTransport::new(&ServerOptions::default(), served).unwrap();
    let signs = provider.key_provider.load_private_key(key.serialize_der().try_into().unwrap()).unwrap();
    let presents = Presenter(Arc::new(CertifiedKey::new(vec![certificate.clone()], signs)));
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]);
    let config = config.unwrap().dangerous().with_custom_certificate_verifier(Arc::new(AnyServer));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.with_client_cert_resolver(Arc::new(presents))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let client = tokio::spawn(async move {
        // A client of TLS 1.3 hears only afterwards that it is refused.
        if let Ok(mut stream) = connector.connect(ServerName::try_from("n1").unwrap(), stream).await {
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
        }
    });
    let transport = transport.open(listener.accept().await.unwrap().0).await.map(|(_, presented)| presented);
    client.abort();
    transport
}

#[tokio::test]
async fn a_certificate_of_version_1_is_presented_by_who_has_its_key_and_says_nothing_of_him() {
    let world = World::new();
    let modern = world.client();
    assert_eq!(world.user(&modern).unwrap().name, "jane");
    let old = version_1(&modern, &world.authority.1);
    assert!(crate::pki::inspect::Certificate::parse(&old).is_ok(), "it is a certificate");
    assert!(world.user(&old).is_err(), "it lets nobody in");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let presented = opened(&old, &world.key, version).await.unwrap();
        assert_eq!(*presented, *std::slice::from_ref(&old), "{version:?}");
        let stolen = opened(&old, &world.authority.1, version).await;
        assert!(stolen.is_err(), "{version:?}: who has another key has no certificate to present");
        let stolen = opened(&modern, &world.authority.1, version).await;
        assert!(stolen.is_err(), "{version:?}: nor of any other kind");
    }
}
