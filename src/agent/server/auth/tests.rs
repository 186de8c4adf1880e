use std::sync::Mutex;

use async_trait::async_trait;
use http::HeaderValue;
use jiff::Timestamp;

use super::*;
use crate::pki::serving_pair;

/// Knows one token, and rights as `user verb subresource`; counts what it is asked.
#[derive(Default)]
struct Fake {
    rights: Vec<&'static str>,
    unreachable: bool,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Reviews for Fake {
    async fn token(&self, token: &str) -> Result<Option<User>, String> {
        self.asked.lock().unwrap().push(format!("token {token}"));
        if self.unreachable {
            return Err("connection refused".into());
        }
        Ok((token == "good").then(|| User::new("jane", vec!["dev".into()])))
    }

    async fn access(&self, user: &User, attributes: &Attributes) -> Result<bool, String> {
        let right = format!("{} {} {}", user.name, attributes.verb, attributes.subresource);
        assert_eq!(attributes.node, "n1");
        self.asked.lock().unwrap().push(right.clone());
        if self.unreachable { Err("connection refused".into()) } else { Ok(self.rights.contains(&right.as_str())) }
    }
}

async fn admit(gate: &Gate<Fake>, token: Option<&str>, method: Method, path: &str) -> Result<User, (u16, String)> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("bearer {token}")).unwrap());
    }
    match gate.admit(None, &headers, &method, path).await {
        Ok(user) => Ok(user),
        Err(refusal) => {
            let (parts, body) = refusal.into_parts();
            let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
            Err((parts.status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
        }
    }
}

fn gate(options: &ServerOptions, fake: Fake) -> Gate<Fake> {
    Gate::new("n1", options, fake)
}

fn asked(gate: &Gate<Fake>) -> Vec<String> {
    std::mem::take(&mut *gate.reviews.asked.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_token_says_who_somebody_is_and_rights_what_he_may() {
    let options = ServerOptions::default();
    let gate = gate(&options, Fake { rights: vec!["jane get proxy", "jane get stats"], ..Fake::default() });
    let user = admit(&gate, Some("good"), Method::GET, "/containerLogs/ns/p/c").await.unwrap();
    assert_eq!(
        (user.name.as_str(), user.groups.as_slice()),
        ("jane", ["dev", "system:authenticated"].map(String::from).as_slice())
    );
    admit(&gate, Some("good"), Method::GET, "/stats/summary").await.unwrap();
    let denied = admit(&gate, Some("good"), Method::POST, "/exec/ns/p/c").await.unwrap_err();
    let words = "Forbidden (user=jane, verb=create, resource=nodes, subresource(s)=[proxy])";
    assert_eq!(denied, (403, words.to_owned()));
    assert_eq!(asked(&gate), ["token good", "jane get proxy", "jane get stats", "jane create proxy"]);
    for path in ["/containerLogs/ns/p/c", "/configz"] {
        admit(&gate, Some("good"), Method::GET, path).await.unwrap();
    }
    assert_eq!(asked(&gate), ["jane get configz"], "what is known is not asked again, and proxy allows what is finer");
    tokio::time::advance(Duration::from_secs(31)).await;
    admit(&gate, Some("good"), Method::POST, "/exec/ns/p/c").await.unwrap_err();
    assert_eq!(asked(&gate), ["jane create proxy"], "what is denied is asked again soon");
    tokio::time::advance(Duration::from_secs(300)).await;
    admit(&gate, Some("good"), Method::GET, "/stats").await.unwrap();
    assert_eq!(asked(&gate), ["token good", "jane get stats"]);
}

#[tokio::test]
async fn who_says_nothing_or_something_wrong_is_not_let_in() {
    let strict = ServerOptions::default();
    let open = ServerOptions { anonymous: true, authorization: Authorization::AlwaysAllow, ..strict.clone() };
    let unauthorized = (401, "Unauthorized".to_owned());
    for token in [None, Some("bad")] {
        let gate = gate(&strict, Fake::default());
        assert_eq!(admit(&gate, token, Method::GET, "/pods").await.unwrap_err(), unauthorized);
    }
    let gate = gate(&open, Fake::default());
    let stranger = admit(&gate, None, Method::GET, "/pods").await.unwrap();
    assert_eq!(
        (stranger.name.as_str(), stranger.groups),
        ("system:anonymous", vec!["system:unauthenticated".to_owned()])
    );
    assert_eq!(admit(&gate, Some("bad"), Method::GET, "/pods").await.unwrap_err(), unauthorized);
}

#[tokio::test]
async fn where_nobody_can_be_asked_nobody_is_let_in() {
    let gate = gate(
        &ServerOptions { anonymous: true, ..ServerOptions::default() },
        Fake { unreachable: true, ..Fake::default() },
    );
    assert_eq!(admit(&gate, Some("good"), Method::GET, "/pods").await.unwrap_err().0, 401);
    let (status, words) = admit(&gate, None, Method::GET, "/pods").await.unwrap_err();
    let expected = "Authorization error (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[pods proxy])";
    assert_eq!((status, words.as_str()), (500, expected));
    let reviews: Option<Arc<crate::agent::apiserver::ApiServer>> = None;
    assert!(reviews.token("x").await.is_err());
}

#[test]
fn a_client_certificate_names_its_user_and_is_good_only_under_its_authority() {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    let authority = |name: &str| {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        (params.self_signed(&key).unwrap().pem(), params, key)
    };
    let leaf = |(_, params, key): &(String, CertificateParams, KeyPair)| {
        let own = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.distinguished_name.push(DnType::OrganizationName, "system:masters");
        leaf.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf.signed_by(&own, &Issuer::from_params(params, key)).unwrap().der().clone()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    let authorities = ClientAuthorities::new(&file);
    let (ours, other) = (authority("kubernetes"), authority("other"));
    assert!(authorities.user(&[leaf(&ours)]).is_err(), "the file is not there yet");
    let write = |pem: &str| crate::host::fs::write_file(&file, pem.as_bytes(), 0o644).unwrap();
    write(&ours.0);
    let user = authorities.user(&[leaf(&ours)]).unwrap();
    assert_eq!((user.name.as_str(), user.groups), ("kube-apiserver-kubelet-client", vec!["system:masters".to_owned()]));
    assert!(authorities.user(&[leaf(&other)]).is_err());
    // The file's time may be as coarse as a tick: another length is another file.
    write(&format!("{}\n{}", other.0, ours.0));
    assert_eq!(authorities.user(&[leaf(&other)]).unwrap().name, "kube-apiserver-kubelet-client");
    let server = serving_pair("n1", vec![], Duration::from_secs(3600), Timestamp::now()).unwrap();
    write(&server.certificate);
    let chain: Vec<_> =
        rustls_pki_types::pem::PemObject::pem_slice_iter(server.certificate.as_bytes()).map(Result::unwrap).collect();
    assert!(authorities.user(&chain).is_err(), "a certificate for servers names no user");
}
