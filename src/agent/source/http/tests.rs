use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A server that says each of its answers once and the last one for ever.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Server {
    async fn new(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/pods", listener.local_addr().unwrap());
        let answers: VecDeque<String> = answers.iter().map(|text| (*text).to_owned()).collect();
        let server = Self { url, requests: Arc::default(), answers: Arc::new(Mutex::new(answers)) };
        let (requests, answers) = (Arc::clone(&server.requests), Arc::clone(&server.answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let request = read_head(&stream).await;
                requests.lock().unwrap().push(request);
                let answer = {
                    let mut answers = answers.lock().unwrap();
                    if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
                };
                let mut stream = stream;
                let _ = stream.write_all(answer.unwrap_or_default().as_bytes()).await;
            }
        });
        server
    }

    fn watch(&self, root: &Path, headers: &[(&str, &str)]) -> Watched {
        watch_url(&self.url, root, headers)
    }
}

async fn read_head(mut stream: &TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.readable().await.unwrap();
        match stream.try_read(&mut byte) {
            Ok(0) => break,
            Ok(_) => head.push(byte[0]),
            Err(_) => {}
        }
    }
    let _ = &mut stream;
    String::from_utf8(head).unwrap()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: 'x:1'}}]}}\n"
    )
}

struct Watched {
    updates: mpsc::Receiver<Update>,
    end: CancellationToken,
}

fn watch_url(url: &str, root: &Path, headers: &[(&str, &str)]) -> Watched {
    let mut options = AgentOptions::new("n");
    options.root_dir = root.to_owned();
    options.http_check_frequency = Duration::from_millis(20);
    options.static_pod_url_headers = headers.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let (sender, updates) = mpsc::channel(1);
    let end = CancellationToken::new();
    tokio::spawn(watch(url.to_owned(), options, sender, end.clone()));
    Watched { updates, end }
}

impl Watched {
    async fn next(&mut self) -> (Vec<String>, String) {
        let update = tokio::time::timeout(Duration::from_secs(30), self.updates.recv()).await.unwrap().unwrap();
        let names = update.pods.iter().map(|pod| pod.key.name.clone()).collect();
        (names, update.problems.first().map(|problem| problem.message.clone()).unwrap_or_default())
    }
}

#[tokio::test]
async fn pods_are_fetched_with_every_header_and_follow_what_the_url_answers() {
    let root = tempfile::tempdir().unwrap();
    let moved = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let server = Server::new(&[moved, &ok(&pod("a")), missing, &ok("<html>"), &ok(""), &ok(&pod("a"))]).await;
    let mut watched = server.watch(root.path(), &[("X-Role", "one"), ("X-Role", "two")]);
    assert_eq!(watched.next().await, (vec!["a-n".to_owned()], String::new()));
    let (names, problem) = watched.next().await;
    assert_eq!((names.len(), problem.as_str()), (1, "answered 404 Not Found; its pods stay as they were"));
    let (names, problem) = watched.next().await;
    assert!(names.len() == 1 && problem.contains("only Pod or PodList (v1) is"), "{problem}");
    assert_eq!(watched.next().await.0, Vec::<String>::new());
    assert_eq!(watched.next().await, (vec!["a-n".to_owned()], String::new()));
    let requests = server.requests.lock().unwrap();
    assert!(requests[0].starts_with("GET /pods HTTP/1.1") && requests[1].starts_with("GET /elsewhere HTTP/1.1"));
    for request in &requests[..2] {
        let request = request.to_lowercase();
        assert!(request.contains("x-role: one\r\nx-role: two\r\n"), "{request}");
    }
}

#[tokio::test]
async fn a_restarted_agent_knows_the_pods_of_a_server_that_is_down() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::new(&[&ok(&pod("a"))]).await;
    let mut watched = server.watch(root.path(), &[]);
    watched.next().await;
    // The next request is made after the answer was kept.
    let asked = server.requests.lock().unwrap().len();
    while server.requests.lock().unwrap().len() < asked + 2 {
        tokio::task::yield_now().await;
    }
    watched.end.cancel();
    *server.answers.lock().unwrap() = VecDeque::from(["".to_owned()]);
    let mut again = server.watch(root.path(), &[]);
    let (names, problem) = again.next().await;
    assert_eq!(names, ["a-n"]);
    assert!(problem.starts_with("cannot be read: ") && problem.ends_with("stay as they were"), "{problem}");
}

#[tokio::test]
async fn a_refused_connection_and_an_endless_answer_are_told_in_plain_words() {
    let root = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://me:hunter2@{}/", listener.local_addr().unwrap());
    drop(listener);
    let refused = watch_url(&url, root.path(), &[]).next().await;
    let words = "cannot be read: tcp connect error: Connection refused (os error 111); nothing runs from it";
    assert_eq!(refused, (vec![], words.to_owned()));
    let endless = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", " ".repeat(MANIFEST_LIMIT));
    let server = Server::new(&[&endless]).await;
    let (_, problem) = server.watch(root.path(), &[]).next().await;
    assert_eq!(problem, "answered with 10485760 bytes or more; nothing runs from it");
}
