//! `/logs/`: the machine's log directory, to look around in and to read.

use std::path::{Component, Path, PathBuf};

use ::http::{HeaderValue, Response, StatusCode, header};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::http::{Body, respond, text_response};

/// Where the machine's logs are.
const LOGS: &str = "/var/log";
/// Bytes that are read at once.
const PIECE: usize = 32 << 10;

/// The answer to `/logs/PATH`; `path` is what is behind `/logs`.
pub async fn answer(path: &str) -> Response<Body> {
    of(Path::new(LOGS), path).await.unwrap_or_else(|_| text_response(StatusCode::NOT_FOUND, "404 page not found\n"))
}

async fn of(root: &Path, path: &str) -> std::io::Result<Response<Body>> {
    let below = path.trim_start_matches('/');
    let at = if below.is_empty() { root.to_owned() } else { within(root, below)? };
    let found = tokio::fs::metadata(&at).await?;
    if found.is_dir() && !path.ends_with('/') {
        let mut response = text_response(StatusCode::MOVED_PERMANENTLY, "");
        // Relative to the request's own path, whatever is before it.
        let last = path.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or("logs");
        let to = HeaderValue::from_str(&format!("{last}/")).map_err(std::io::Error::other)?;
        response.headers_mut().insert(header::LOCATION, to);
        return Ok(response);
    }
    if found.is_dir() {
        return listing(&at).await;
    }
    // Whatever is no file may have no end.
    if !found.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let file = File::open(&at).await?;
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let length = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((length > 0).then(|| (Frame::data(piece.into()), file)))
    });
    let mut response = text_response(StatusCode::OK, "");
    *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
    Ok(response)
}

/// A path that does not lead out of the directory by its words.
fn within(root: &Path, below: &str) -> std::io::Result<PathBuf> {
    let plain = Path::new(below).components().all(|part| matches!(part, Component::Normal(_)));
    if plain { Ok(root.join(below)) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

async fn listing(dir: &Path) -> std::io::Result<Response<Body>> {
    let mut entries = tokio::fs::read_dir(dir).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let slash = if entry.file_type().await.is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let line = |name: &String| {
        let shown = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        format!("<a href=\"{shown}\">{shown}</a>\n")
    };
    let lines: String = names.iter().map(line).collect();
    Ok(respond(StatusCode::OK, "text/html; charset=utf-8", format!("<pre>\n{lines}</pre>\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(root: &Path, path: &str) -> (u16, String) {
        match of(root, path).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                (parts.status.as_u16(), String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned())
            }
            Err(_) => (404, String::new()),
        }
    }

    #[tokio::test]
    async fn directories_are_listed_and_files_read_and_nothing_else_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("pods")).unwrap();
        let long = "line\n".repeat(20_000);
        for (path, text) in [("log/a.log", long.as_str()), ("secret", "s")] {
            crate::host::fs::write_file(&dir.path().join(path), text.as_bytes(), 0o644).unwrap();
        }
        let listed = "<pre>\n<a href=\"a.log\">a.log</a>\n<a href=\"pods/\">pods/</a>\n</pre>\n".to_owned();
        assert_eq!(asked(&root, "/").await, (200, listed));
        assert_eq!(asked(&root, "").await.0, 301);
        assert_eq!(asked(&root, "/pods").await.0, 301);
        let (status, text) = asked(&root, "/a.log").await;
        assert!(status == 200 && text == long);
        for path in ["/../secret", "/pods/../../secret", "/none", "/./a.log/.."] {
            assert_eq!(asked(&root, path).await.0, 404, "{path}");
        }
    }
}
