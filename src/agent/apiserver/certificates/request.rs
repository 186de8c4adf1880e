//! A certificate by a CertificateSigningRequest: made, waited for, fetched.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{Api, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use tokio::time::sleep;
use tracing::{debug, info};

use super::store::Pair;
use crate::agent::apiserver::CALL_LIMIT;
use crate::agent::backoff::Steps;
use crate::config::spec::KeyAlgorithm;
use crate::error::chain;
use crate::host::clock::{Instant, timeout_at};
use crate::pki::{IssueError, KeyError, PrivateKey, San, node_request};

/// How long an answer is waited for before another request is made, as by a kubelet.
const ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long a controller may take to approve it, before a warning says that an administrator may have to.
const APPROVAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an API server that is away meanwhile.
const RETRY: Steps = Steps { initial: Duration::from_millis(200), cap: Duration::from_secs(7) };

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] KeyError),
    /// No request could be made of it.
    #[error("cannot make a signing request")]
    Issue(#[from] IssueError),
    /// The API server refused the request, or could not be reached.
    #[error("cannot {what}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        #[source]
        source: Box<kube::Error>,
    },
    /// No server answered.
    #[error("cannot {what}: no answer in time")]
    Timeout {
        /// What was tried.
        what: &'static str,
    },
    /// It was denied.
    #[error("the request {name} was refused: {message}")]
    Refused {
        /// The request.
        name: String,
        /// Why.
        message: String,
    },
    /// It was not approved in time.
    #[error("nobody has approved the request {name} within {} min", ANSWER_LIMIT.as_secs() / 60)]
    Pending {
        /// The request.
        name: String,
    },
    /// The certificate is not for the key.
    #[error("the request {name} was answered with what is no certificate for its key")]
    NoPair {
        /// The request.
        name: String,
    },
}

/// What is asked for.
pub struct RequestedCertificate<'a> {
    /// The node.
    pub node: &'a str,
    /// Names and addresses it serves under; none for a client certificate.
    pub sans: Vec<San>,
    /// The key, where an earlier agent may have asked for it already: the request has a name that follows from it.
    pub key: Option<PrivateKey>,
}

/// A new key. Kubelets have P-256 keys.
pub fn new_key() -> Result<PrivateKey, RequestError> {
    Ok(PrivateKey::generate(KeyAlgorithm::EcdsaP256)?)
}

/// Asks for a certificate and waits for it, for a quarter of an hour at most.
pub async fn ask(client: &Client, wanted: RequestedCertificate<'_>) -> Result<Pair, RequestError> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let RequestedCertificate { node, sans, key } = wanted;
    let (key, name) = match key {
        Some(key) => {
            let name = name_of(&key);
            (key, Some(name))
        }
        None => (new_key()?, None),
    };
    let request = object(node, sans, &key, name.clone())?;
    let name = match call("make a signing request", requests.create(&PostParams::default(), &request)).await {
        Ok(made) => {
            info!(name = made.name_any(), signer = made.spec.signer_name, "asked for a certificate");
            made.name_any()
        }
        Err(error) => name.filter(|_| is_there(&error)).ok_or(error)?,
    };
    let chain = answer(&requests, &name, APPROVAL_PATIENCE).await?;
    Pair::new(&chain, key.pem()).ok_or(RequestError::NoPair { name })
}

/// The name of a request that is made only once for a key.
fn name_of(key: &PrivateKey) -> String {
    let digest = digest::digest(&digest::SHA256, &key.public_der());
    format!("node-csr-{}", URL_SAFE_NO_PAD.encode(digest.as_ref()).to_lowercase().replace('_', "-"))
        .trim_end_matches('-')
        .to_owned()
}

fn object(
    node: &str,
    sans: Vec<San>,
    key: &PrivateKey,
    name: Option<String>,
) -> Result<CertificateSigningRequest, RequestError> {
    let (signer, usage) = match sans.is_empty() {
        true => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth"),
        false => ("kubernetes.io/kubelet-serving", "server auth"),
    };
    let generate_name = name.is_none().then(|| "csr-".to_owned());
    Ok(CertificateSigningRequest {
        metadata: ObjectMeta { name, generate_name, ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(node_request(node, sans, key)?.into_bytes()),
            signer_name: signer.to_owned(),
            // All three, although an ECDSA key enciphers none: old approvers want exactly these, and new ones take them.
            usages: Some(["digital signature", "key encipherment", usage].map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    })
}

/// The certificate that a request is answered with. After `patience` it is said who may have to approve it.
async fn answer(
    requests: &Api<CertificateSigningRequest>,
    name: &str,
    patience: Duration,
) -> Result<Vec<u8>, RequestError> {
    let (started, mut failures) = (Instant::now(), 0_u32);
    let deadline = started + ANSWER_LIMIT;
    // When what is to be done is said; none once it was.
    let mut say = Some(started + patience);
    while Instant::now() < deadline {
        let found = call("read the signing request", requests.get(name)).await;
        let version = match found {
            Ok(request) => {
                if let Some(answer) = answered(&request) {
                    return answer;
                }
                if say.take_if(|at| *at <= Instant::now()).is_some() {
                    info!(name, "waiting for the certificate; `kubectl certificate approve {name}` approves it");
                }
                failures = 0;
                request.resource_version().unwrap_or_default()
            }
            // Pending requests are cleared away after a day.
            Err(error) if is_missing(&error) => return Err(error),
            Err(error) => {
                failures = failures.saturating_add(1);
                debug!(error = chain(&error), "cannot look for the certificate");
                sleep(RETRY.spread(failures)).await;
                continue;
            }
        };
        if !changes(requests, name, &version, say.unwrap_or(deadline)).await {
            failures = failures.saturating_add(1);
            sleep(RETRY.spread(failures)).await;
        }
    }
    Err(RequestError::Pending { name: name.to_owned() })
}

/// Waits until the request is another than at `version`, or for that moment; false where that cannot be watched. One watch
/// from a known version: kube's `watcher` would list first.
async fn changes(requests: &Api<CertificateSigningRequest>, name: &str, version: &str, deadline: Instant) -> bool {
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let Ok(events) = call("watch the signing request", requests.watch(&params, version)).await else { return false };
    let mut events = Box::pin(events);
    while let Ok(Some(event)) = timeout_at(deadline, events.next()).await {
        match event {
            Ok(WatchEvent::Bookmark(_)) => {}
            Ok(WatchEvent::Error(_)) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
    true
}

/// What a request came to; None while it is pending.
fn answered(request: &CertificateSigningRequest) -> Option<Result<Vec<u8>, RequestError>> {
    let status = request.status.as_ref()?;
    let no = status.conditions.iter().flatten().find(|one| matches!(one.type_.as_str(), "Denied" | "Failed"));
    if let Some(no) = no {
        let message = no.message.clone().or_else(|| no.reason.clone()).unwrap_or_else(|| no.type_.clone());
        return Some(Err(RequestError::Refused { name: request.name_any(), message }));
    }
    status.certificate.as_ref().filter(|chain| !chain.0.is_empty()).map(|chain| Ok(chain.0.clone()))
}

async fn call<T>(what: &'static str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    let answer = tokio::time::timeout(CALL_LIMIT, request).await.map_err(|_| RequestError::Timeout { what })?;
    answer.map_err(|source| RequestError::Call { what, source: source.into() })
}

fn is_there(error: &RequestError) -> bool {
    matches!(error, RequestError::Call { source, .. } if matches!(&**source, kube::Error::Api(s) if s.is_already_exists()))
}

fn is_missing(error: &RequestError) -> bool {
    matches!(error, RequestError::Call { source, .. } if matches!(&**source, kube::Error::Api(s) if s.is_not_found()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestStatus;
    use serde_json::{Value, json};

    use crate::testing::api::FakeApi;
    use crate::testing::log::Log;

    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

    #[tokio::test]
    async fn only_a_request_that_is_not_approved_soon_is_said_to_wait_for_somebody() {
        let (api, client) = FakeApi::serve().await;
        let (log, _kept) = Log::begin();
        let requests: Api<CertificateSigningRequest> = Api::all(client);
        let patience = Duration::from_millis(400);
        for (name, after) in [("csr-soon", patience / 8), ("csr-late", patience * 3)] {
            api.put(REQUESTS, json!({"metadata": {"name": name}, "spec": {"request": "", "signerName": "x/y"}}));
            let path = format!("{REQUESTS}/{name}");
            let approve = async {
                sleep(after).await;
                api.change(&path, &json!({"status": {"certificate": "YQ=="}}));
            };
            let (answered, ()) = tokio::join!(answer(&requests, name, patience), approve);
            assert_eq!(answered.unwrap(), b"a", "{name}");
        }
        let said = log.text();
        assert_eq!(said.matches("certificate approve").count(), 1, "{said}");
        assert!(said.contains("`kubectl certificate approve csr-late` approves it"), "{said}");
    }

    #[test]
    fn a_request_is_what_an_approver_expects_of_a_node() {
        let key = new_key().unwrap();
        let client = object("cp1", vec![], &key, Some(name_of(&key))).unwrap();
        assert_eq!(client.spec.signer_name, "kubernetes.io/kube-apiserver-client-kubelet");
        assert_eq!(client.spec.usages.unwrap(), ["digital signature", "key encipherment", "client auth"]);
        let name = client.metadata.name.unwrap();
        assert!(name.starts_with("node-csr-") && name.len() <= 63, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        let server = object("cp1", vec![San::Dns("cp1".into())], &key, None).unwrap();
        assert_eq!(server.spec.signer_name, "kubernetes.io/kubelet-serving");
        assert_eq!(server.metadata.generate_name.as_deref(), Some("csr-"));
    }

    #[test]
    fn an_answer_is_a_certificate_or_a_refusal() {
        let with = |status: Value| CertificateSigningRequest {
            status: Some(serde_json::from_value::<CertificateSigningRequestStatus>(status).unwrap()),
            ..CertificateSigningRequest::default()
        };
        assert!(answered(&CertificateSigningRequest::default()).is_none());
        let approved = json!([{"type": "Approved", "status": "True"}]);
        assert!(answered(&with(json!({"conditions": approved}))).is_none());
        let signed = answered(&with(json!({"conditions": approved, "certificate": "YQ=="}))).unwrap();
        assert_eq!(signed.unwrap(), b"a");
        let denied = json!({"conditions": [{"type": "Denied", "status": "True", "message": "not you"}]});
        let error = answered(&with(denied)).unwrap().unwrap_err().to_string();
        assert!(error.ends_with("not you"), "{error}");
    }
}
