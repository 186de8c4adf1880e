use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const CA: &[u8] = include_bytes!("fixtures/ca.crt");
const PIN: &str = include_str!("fixtures/ca.pin");

type Answer = Result<Data, FetchError>;

/// Answers in turn; the last answer stays. Keeps whether each question came with a CA.
struct Script {
    answers: Mutex<Vec<Answer>>,
    asked: Mutex<Vec<bool>>,
    last: Data,
}

impl Script {
    fn new(answers: Vec<Answer>, last: Data) -> Self {
        Self { answers: Mutex::new(answers), asked: Mutex::default(), last }
    }

    fn asked(&self) -> Vec<bool> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Source for Script {
    async fn cluster_info(&self, server: &str, ca: Option<&[u8]>) -> Result<Data, FetchError> {
        assert_eq!(server, "https://10.0.0.5:6443");
        self.asked.lock().unwrap().push(ca.is_some_and(|ca| ca == CA));
        let mut answers = self.answers.lock().unwrap();
        if answers.is_empty() { Ok(self.last.clone()) } else { answers.remove(0) }
    }
}

fn token() -> Token {
    "abcdef.0123456789abcdef".parse().unwrap()
}

fn order(pins: &[&str]) -> ByToken {
    ByToken {
        endpoint: "10.0.0.5:6443".into(),
        token: token(),
        pins: pins.iter().map(|pin| pin.trim().parse().unwrap()).collect(),
        limit: Duration::from_secs(60),
    }
}

fn kubeconfig_text() -> String {
    let ca = STANDARD.encode(CA);
    format!(
        "clusters:\n- name: ''\n  cluster:\n    server: https://10.0.0.5:6443\n    certificate-authority-data: {ca}\n"
    )
}

fn signed(text: &str) -> Data {
    let signature = jws::tests::sign(text.as_bytes(), &token());
    [(KUBECONFIG.to_owned(), text.to_owned()), (format!("{SIGNATURE}abcdef"), signature)].into()
}

fn good() -> Data {
    signed(&kubeconfig_text())
}

fn without(key: &str) -> Data {
    let mut data = good();
    data.remove(key);
    data
}

fn unreachable() -> FetchError {
    FetchError::Unreachable("connection refused".into())
}

async fn run(source: &Script, order: &ByToken) -> (Result<ClusterInfo, DiscoveryError>, Vec<String>) {
    let heard = Mutex::new(Vec::new());
    let result = by_token(source, order, &|error| heard.lock().unwrap().push(error.to_string())).await;
    (result, heard.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_signed_and_pinned_cluster_is_found_and_asked_again_with_its_own_ca() {
    for pins in [&[PIN][..], &[], &["sha256:00", PIN].map(|pin| if pin == PIN { PIN } else { OTHER_PIN })] {
        let source = Script::new(vec![], good());
        let (result, heard) = run(&source, &order(pins)).await;
        let info = result.unwrap();
        assert_eq!((info.server.as_str(), info.ca.as_slice()), ("https://10.0.0.5:6443", CA));
        assert_eq!(source.asked(), [false, true]);
        assert!(heard.is_empty());
    }
}

const OTHER_PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::test(start_paused = true)]
async fn what_cannot_be_trusted_ends_it_at_once() {
    let mut forged = good();
    forged.insert(KUBECONFIG.into(), kubeconfig_text().replace("10.0.0.5", "10.6.6.6"));
    let cases = [
        (forged, order(&[PIN]), "the signature of cluster-info with token abcdef is not good"),
        (good(), order(&[OTHER_PIN]), "none of --discovery-token-ca-cert-hash"),
        (
            signed("clusters: []"),
            order(&[PIN]),
            "the kubeconfig in cluster-info of https://10.0.0.5:6443 cannot be used",
        ),
    ];
    for (data, order, words) in cases {
        let source = Script::new(vec![], data);
        let start = Instant::now();
        let (result, heard) = run(&source, &order).await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error} {error:?}").contains("0123456789abcdef"), "the token's secret half in {error:?}");
        assert_eq!((source.asked(), heard.len(), start.elapsed()), (vec![false], 0, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_proves_itself_and_says_something_else_is_not_trusted() {
    let source = Script::new(vec![Ok(good())], signed(&kubeconfig_text().replace("10.0.0.5", "10.0.0.6")));
    let error = run(&source, &order(&[PIN])).await.0.unwrap_err();
    assert!(matches!(error, DiscoveryError::Changed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_ca_or_another_time_is_told_apart_at_the_second_question() {
    for (fetch, words) in [
        (FetchError::Stranger("unknown issuer".into()), "its certificate is not of this cluster's CA"),
        (FetchError::Clock("expired".into()), "see whether the clock is right"),
    ] {
        let source = Script::new(vec![Ok(good()), Err(fetch)], good());
        let error = run(&source, &order(&[PIN])).await.0.unwrap_err();
        let DiscoveryError::Fetch { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains(words), "{source}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_yet_or_has_not_signed_yet_is_asked_again_every_five_seconds() {
    let answers = vec![Err(unreachable()), Err(FetchError::Missing), Ok(without("jws-kubeconfig-abcdef")), Ok(good())];
    let source = Script::new(answers, good());
    let start = Instant::now();
    let (result, heard) = run(&source, &order(&[PIN])).await;
    result.unwrap();
    assert_eq!((heard.len(), start.elapsed()), (3, Duration::from_secs(15)));
    assert!(heard[2].contains("token abcdef") && heard[2].contains("has expired"), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn when_time_is_up_the_last_reason_is_told() {
    let mut others = without("jws-kubeconfig-abcdef");
    others.insert("jws-kubeconfig-qwerty".into(), "x".into());
    let cases: [(Data, Vec<Answer>, &str); 3] = [
        (without(KUBECONFIG), vec![], "holds no kubeconfig"),
        (others, vec![], "(it is signed with qwerty)"),
        (good(), (0..20).map(|_| Err(unreachable())).collect(), "cannot fetch cluster-info from https://10.0.0.5:6443"),
    ];
    for (last, answers, words) in cases {
        let start = Instant::now();
        let (result, heard) = run(&Script::new(answers, last), &order(&[PIN])).await;
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "the cluster was not found within 60 s");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(words), "{cause}");
        assert_eq!((heard.len(), start.elapsed()), (12, Duration::from_secs(55)));
    }
}

/// A server that never answers is given up with the others.
struct Silent;

#[async_trait]
impl Source for Silent {
    async fn cluster_info(&self, _: &str, _: Option<&[u8]>) -> Result<Data, FetchError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let start = Instant::now();
    let error = by_token(&Silent, &order(&[]), &|_| {}).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Timeout { last: None, .. }));
    assert_eq!(start.elapsed(), Duration::from_secs(60));
}

fn discovery_file(dir: &std::path::Path, user: &str) -> FileSource {
    let path = dir.join("discovery.conf");
    let text = format!(
        "{}current-context: c\ncontexts:\n- name: c\n  context: {{cluster: '', user: me}}\n{user}",
        kubeconfig_text()
    );
    crate::host::fs::write_file(&path, text.as_bytes(), 0o600).unwrap();
    FileSource::Path(path)
}

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_file_brings_its_credentials_and_cluster_info_its_newer_server() {
    let dir = tempfile::tempdir().unwrap();
    let newer = signed(&kubeconfig_text().replace("10.0.0.5", "10.0.0.9"));
    let source = Script::new(vec![], newer);
    let file = discovery_file(dir.path(), "users:\n- name: me\n  user: {token: t0, client-key: key.pem}\n");
    let handed = by_file(&source, &file, LIMIT, &|_| {}).await.unwrap();
    assert_eq!(handed.info.server, "https://10.0.0.9:6443");
    let (name, user) = handed.user.unwrap();
    assert_eq!((name.as_str(), &user["token"]), ("me", &serde_json::json!("t0")));
    assert_eq!(user["client-key"], dir.path().join("key.pem").display().to_string(), "from where the file is");
    assert_eq!(source.asked(), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_file_without_credentials_and_a_cluster_that_publishes_nothing_are_fine() {
    let dir = tempfile::tempdir().unwrap();
    for refusal in [FetchError::Forbidden, FetchError::Missing] {
        let source = Script::new(vec![Err(unreachable()), Err(refusal)], Data::new());
        let handed = by_file(&source, &discovery_file(dir.path(), ""), LIMIT, &|_| {}).await.unwrap();
        assert_eq!(handed.info.server, "https://10.0.0.5:6443");
        assert!(handed.user.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_not_there_or_makes_no_sense_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("discovery.conf");
    let error = |file| async move { by_file(&Silent, &file, LIMIT, &|_| {}).await.err().unwrap().to_string() };
    assert_eq!(
        error(FileSource::Path(path.clone())).await,
        format!("cannot read the discovery file {}", path.display())
    );
    crate::host::fs::write_file(&path, b"[]", 0o600).unwrap();
    assert!(error(FileSource::Path(path)).await.ends_with("cannot be used"));
}
