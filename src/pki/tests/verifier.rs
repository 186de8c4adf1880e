//! Servers that webpki refuses and Go takes, and those that both refuse.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kube::Config;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::pki::client::connect;
use crate::pki::verifier::Verifier;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// Names `address` in the 16 bytes that Go's own type has for it.
fn in_sixteen_bytes(mut params: CertificateParams, address: Ipv4Addr) -> CertificateParams {
    let der = [&[0x30, 18, 0x87, 16][..], &address.to_ipv6_mapped().octets()].concat();
    params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], der));
    params
}

fn at_loopback(mut params: CertificateParams) -> CertificateParams {
    params.subject_alt_names.push(rcgen::SanType::IpAddress(LOOPBACK));
    params
}

/// What is trusted, what the server shows, and its key.
struct Shown {
    trusted: CertificateDer<'static>,
    own: CertificateDer<'static>,
    key: KeyPair,
}

impl Shown {
    fn itself(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap().der().clone();
        Self { trusted: own.clone(), own, key }
    }

    fn signed(params: &CertificateParams) -> Self {
        let (root, root_key, key) = (ca("root"), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let trusted = root.self_signed(&root_key).unwrap().der().clone();
        let own = params.signed_by(&key, &Issuer::from_params(&root, &root_key)).unwrap().der().clone();
        Self { trusted, own, key }
    }

    /// Whether webpki takes it, and whether we do.
    fn taken(&self, name: &str) -> (bool, bool) {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let ours = Verifier::new(std::slice::from_ref(&self.trusted)).unwrap();
        let taken = |verifier: &dyn ServerCertVerifier| {
            verifier.verify_server_cert(&self.own, &[], &name, &[], UnixTime::now()).is_ok()
        };
        (taken(&*webpki), taken(&ours))
    }
}

#[test]
fn what_go_takes_is_taken() {
    let leaf = || CertificateParams::new(vec![]).unwrap();
    let mut named = ca("server");
    named.subject_alt_names.push(rcgen::SanType::DnsName("api.example".try_into().unwrap()));
    let cases = [
        ("a CA of its own", Shown::itself(&at_loopback(ca("server"))), "127.0.0.1"),
        ("a CA that another has signed", Shown::signed(&at_loopback(ca("server"))), "127.0.0.1"),
        ("a CA with a name", Shown::itself(&named), "api.example"),
        ("16 bytes", Shown::signed(&in_sixteen_bytes(leaf(), Ipv4Addr::LOCALHOST)), "127.0.0.1"),
        ("both", Shown::itself(&in_sixteen_bytes(ca("server"), Ipv4Addr::LOCALHOST)), "127.0.0.1"),
    ];
    for (what, shown, name) in cases {
        assert_eq!(shown.taken(name), (false, true), "{what}");
    }
    let usual = Shown::signed(&at_loopback(leaf()));
    assert_eq!(usual.taken("127.0.0.1"), (true, true));
}

#[test]
fn what_go_refuses_is_refused() {
    let leaf = || CertificateParams::new(vec![]).unwrap();
    let stranger = Shown { trusted: Shown::itself(&ca("other")).own, ..Shown::itself(&at_loopback(ca("server"))) };
    let namesake = Shown { trusted: Shown::itself(&ca("root")).own, ..Shown::signed(&at_loopback(ca("server"))) };
    let mut for_clients = at_loopback(ca("server"));
    for_clients.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    let mut expired = at_loopback(ca("server"));
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = at_loopback(ca("server"));
    early.not_before = rcgen::date_time_ymd(3000, 1, 1);
    let mut demanding = at_loopback(ca("server"));
    let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    unknown.set_criticality(true);
    demanding.custom_extensions.push(unknown);
    let sixteen = in_sixteen_bytes(leaf(), Ipv4Addr::new(10, 0, 0, 5));
    let cases = [
        ("another CA", stranger, "127.0.0.1"),
        ("another CA of the same name", namesake, "127.0.0.1"),
        ("another address", Shown::itself(&at_loopback(ca("server"))), "127.0.0.2"),
        ("a name that it has not", Shown::itself(&at_loopback(ca("server"))), "localhost"),
        ("no server's", Shown::itself(&for_clients), "127.0.0.1"),
        ("expired", Shown::itself(&expired), "127.0.0.1"),
        ("a critical extension that is unknown", Shown::itself(&demanding), "127.0.0.1"),
        ("too early", Shown::itself(&early), "127.0.0.1"),
        ("another address in 16 bytes", Shown::signed(&sixteen), "127.0.0.1"),
    ];
    for (what, shown, name) in cases {
        assert_eq!(shown.taken(name), (false, false), "{what}");
    }
}

/// A server that answers one request with its version, at the address it listens on.
async fn serve(shown: &Shown) -> SocketAddr {
    let key = PrivateKeyDer::try_from(shown.key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![shown.own.clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut request = [0; 4096];
        let size = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..size]).to_lowercase();
        let status = if request.contains("authorization: bearer secret") { "200 OK" } else { "401 Unauthorized" };
        let body = r#"{"major":"1","minor":"36","gitVersion":"v1.36.2","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    address
}

#[tokio::test]
async fn a_client_asks_such_a_server_with_its_credentials() {
    let leaf = in_sixteen_bytes(CertificateParams::new(vec![]).unwrap(), Ipv4Addr::LOCALHOST);
    for shown in [Shown::itself(&at_loopback(ca("server"))), Shown::signed(&leaf)] {
        let mut config = Config::new(format!("https://{}", serve(&shown).await).parse().unwrap());
        config.root_cert = Some(vec![shown.trusted.to_vec()]);
        config.auth_info.token = Some("secret".to_owned().into());
        let version = connect(config).unwrap().apiserver_version().await.unwrap();
        assert_eq!(version.git_version, "v1.36.2");
    }
    // A name of its own in place of the address.
    let mut named = ca("server");
    named.subject_alt_names.push(rcgen::SanType::DnsName("api.example".try_into().unwrap()));
    let shown = Shown::itself(&named);
    let mut config = Config::new(format!("https://{}", serve(&shown).await).parse().unwrap());
    config.root_cert = Some(vec![shown.trusted.to_vec()]);
    config.auth_info.token = Some("secret".to_owned().into());
    config.tls_server_name = Some("api.example".into());
    assert!(connect(config).unwrap().apiserver_version().await.is_ok());
}
