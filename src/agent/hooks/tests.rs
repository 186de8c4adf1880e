use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::agent::probe::Port;
use crate::runtime::ExecOutput;
use crate::testing::runtime::{FakeRuntime, container_config};

fn hook(handler: &str, ports: &str) -> Result<Hook, HookError> {
    Hook::of_json(handler, Some(ports))
}

fn place() -> Place {
    Place { container: "none".into(), address: Some("127.0.0.1".into()) }
}

/// Answers each connection with one of `answers`, and keeps what it was sent.
async fn server(answers: Vec<String>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(vec![]));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).await.unwrap();
            kept.lock().unwrap().push(String::from_utf8_lossy(&bytes[..read]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, asked)
}

fn answer(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{headers}Connection: close\r\n\r\n")
}

#[test]
fn a_handler_has_one_action_and_its_port_may_have_a_name() {
    let ports = r#"[{"containerPort": 8080, "name": "web"}]"#;
    let exec = hook(r#"{"exec": {"command": ["true"]}}"#, "[]").unwrap();
    assert_eq!(exec, Hook::Exec(vec!["true".into()]));
    assert_eq!(hook(r#"{"sleep": {"seconds": 3}}"#, "[]").unwrap(), Hook::Sleep(Duration::from_secs(3)));
    for (port, expected) in [("\"web\"", Port::Number(8080)), ("81", Port::Number(81))] {
        let Ok(Hook::Http(get)) = hook(&format!(r#"{{"httpGet": {{"path": "/x", "port": {port}}}}}"#), ports) else {
            panic!("an HTTP hook")
        };
        assert_eq!((get.port, get.path.as_str()), (expected, "/x"));
    }
    for (bad, why) in [
        ("{}", "none of exec"),
        (r#"{"exec": {}}"#, "no command"),
        (r#"{"tcpSocket": {"port": 1}}"#, "tcpSocket is not supported"),
        (r#"{"exec": {"command": ["x"]}, "sleep": {"seconds": 1}}"#, "more than one"),
        ("no JSON", "expected"),
    ] {
        let error = hook(bad, "[]").unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[tokio::test]
async fn an_http_hook_takes_any_status_for_a_success_and_says_who_asks() {
    let runner = Runner::new(Arc::new(FakeRuntime::new()));
    let moved = answer("302 Found", "Location: /there\r\n");
    let (port, asked) = server(vec![answer("500 Oops", ""), moved, answer("404 Not Found", "")]).await;
    let Ok(hook) = hook(&format!(r#"{{"httpGet": {{"path": "/here", "port": {port}}}}}"#), "[]") else { panic!() };
    runner.run(&hook, &place(), None).await.unwrap();
    runner.run(&hook, &place(), None).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked[0].to_ascii_lowercase().contains("user-agent: kube-lifecycle/1."), "{asked:?}");
    let lines: Vec<_> = asked.iter().map(|request| request.lines().next().unwrap_or_default()).collect();
    assert_eq!(lines, ["GET /here HTTP/1.1", "GET /here HTTP/1.1", "GET /there HTTP/1.1"], "redirects are followed");
}

#[tokio::test]
async fn an_https_hook_that_is_answered_in_plain_http_asks_again_in_it() {
    let runner = Runner::new(Arc::new(FakeRuntime::new()));
    let (port, asked) = server(vec![answer("400 Bad Request", ""), answer("200 OK", "")]).await;
    let handler = format!(r#"{{"httpGet": {{"scheme": "HTTPS", "port": {port}}}}}"#);
    runner.run(&hook(&handler, "[]").unwrap(), &place(), None).await.unwrap();
    assert!(asked.lock().unwrap()[1].starts_with("GET / HTTP/1.1"));
}

#[tokio::test]
async fn nobody_who_answers_and_no_address_are_failures() {
    let runner = Runner::new(Arc::new(FakeRuntime::new()));
    let get = |port: &str| hook(&format!(r#"{{"httpGet": {{"port": {port}}}}}"#), "[]").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    assert!(matches!(runner.run(&get(&port), &place(), None).await, Err(HookError::Http(_))));
    let nowhere = Place { address: None, ..place() };
    assert!(matches!(runner.run(&get("1"), &nowhere, None).await, Err(HookError::NoAddress)));
    assert!(matches!(runner.run(&get("\"web\""), &place(), None).await, Err(HookError::Unusable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_command_is_judged_by_its_exit_code_and_abandoned_with_the_grace() {
    let fake = FakeRuntime::new().with_image("x");
    let id = fake.create_container(&container_config("o", "p", "c", 0, "x")).await.unwrap();
    fake.start(&id).await.unwrap();
    let runner = Runner::new(Arc::new(fake.clone()));
    let place = Place { container: id, address: None };
    let exec = Hook::Exec(vec!["a".into(), "b".into()]);
    runner.run(&exec, &place, None).await.unwrap();
    fake.answer_exec("c", Duration::from_secs(5), |_| Ok(ExecOutput { exit_code: 3, output: "no\n".into() }));
    let error = runner.run(&exec, &place, None).await.unwrap_err();
    assert_eq!(error.to_string(), "a b exited with code 3: no");
    let (end, mut ended) = tokio::sync::watch::channel(0);
    fake.answer_exec("c", Duration::from_secs(5), move |_| {
        end.send_modify(|times| *times += 1);
        Ok(ExecOutput { exit_code: 0, output: String::new() })
    });
    for hook in [exec, Hook::Sleep(Duration::from_secs(100))] {
        let started = crate::host::clock::Instant::now();
        let abandoned = runner.run(&hook, &place, Some(Duration::from_secs(2))).await;
        assert!(matches!(abandoned, Err(HookError::Abandoned(_))), "{hook:?}");
        assert_eq!(started.elapsed().as_secs(), 2);
    }
    // What is not waited for any more has the rest of its container's life.
    ended.wait_for(|times| *times == 1).await.unwrap();
}
