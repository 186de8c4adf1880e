//! Answers that the client cannot read: podman calls a container that is just ending `stopped`, and one that is just
//! starting `initialized`, which are no states of Docker's. Such an answer is asked for once more, and read here.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::address::Address;

/// How long a daemon may take, as for any call.
const CALL: Duration = Duration::from_secs(120);
/// The most bytes of an answer.
const MOST: usize = 64 << 20;
/// podman's states and what Docker calls them. Whether a container has ended is told beside it, by `Running`.
const STATES: [(&str, &str); 4] =
    [("stopped", "exited"), ("initialized", "created"), ("configured", "created"), ("unknown", "dead")];

/// What a daemon on this machine answers to a GET, read with Docker's words for states.
pub async fn get<T: DeserializeOwned>(
    address: &Address,
    path: &str,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    let late = |_| format!("no answer within {} s", CALL.as_secs());
    tokio::time::timeout(CALL, ask(address, path)).await.map_err(late)?
}

async fn ask<T: DeserializeOwned>(
    address: &Address,
    path: &str,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    let Address::Unix(socket) = address else { return Err("only a local daemon can be asked again".into()) };
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(path).header(header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST).collect().await?.to_bytes();
    if !status.is_success() {
        return Err(format!("status {status}").into());
    }
    let mut value: Value = serde_json::from_slice(&body)?;
    translate(&mut value);
    Ok(serde_json::from_value(value)?)
}

/// Puts the states of containers, in a list or alone, into Docker's words.
fn translate(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(translate),
        Value::Object(fields) => {
            if let Some(state) = fields.get_mut("State") {
                match state {
                    Value::Object(state) => state.get_mut("Status").into_iter().for_each(rename),
                    state => rename(state),
                }
            }
        }
        _ => {}
    }
}

fn rename(state: &mut Value) {
    if let Some((_, docker)) = STATES.iter().find(|(podman, _)| state == podman) {
        *state = Value::from(*docker);
    }
}

/// A filter as it stands in a query.
pub fn query(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerInspectResponse, ContainerSummary};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// A daemon that answers once, and what it was asked.
    async fn asked<T: DeserializeOwned>(path: &str, answer: Value) -> (String, T) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let body = answer.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let answer = get(&Address::Unix(socket.display().to_string()), path).await.unwrap();
        (server.await.unwrap().lines().next().unwrap().to_owned(), answer)
    }

    #[tokio::test]
    async fn states_that_docker_does_not_have_are_read_in_a_list_and_alone() {
        let list = json!([{"Id": "a", "State": "stopped"}, {"Id": "b", "State": "running"}]);
        let (line, list) = asked::<Vec<ContainerSummary>>("/containers/json?all=true", list).await;
        assert_eq!(line, "GET /containers/json?all=true HTTP/1.1");
        let states: Vec<_> = list.iter().map(|one| one.state.as_ref().unwrap().to_string()).collect();
        assert_eq!(states, ["exited", "running"]);
        let one = json!({"Id": "a", "State": {"Status": "initialized", "Running": false}});
        let (_, one) = asked::<ContainerInspectResponse>("/containers/a/json", one).await;
        assert_eq!(one.state.unwrap().status.unwrap().to_string(), "created");
    }

    #[test]
    fn a_query_holds_plain_characters_only() {
        assert_eq!(query("{\"label\":[\"a=/b\"]}"), "%7B%22label%22%3A%5B%22a%3D%2Fb%22%5D%7D");
    }
}
