//! `/containerLogs/NAMESPACE/POD/CONTAINER`.

use ::http::{Response, StatusCode};
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use std::time::Duration;

use super::http::{Body, text_response};
use super::query::Query;
use crate::agent::context::Context;
use crate::agent::control::log::{LogError, LogRequest};
use crate::agent::logs::find;
use crate::error::chain;
use crate::runtime::RuntimeError;

/// The log of the container that `path` (`NAMESPACE/POD/CONTAINER`) names, as it comes.
pub async fn stream(context: &Context, path: &str, query: &Query) -> Response<Body> {
    let request = match request(path, query, Timestamp::now()) {
        Ok(request) => request,
        Err((status, message)) => return text_response(status, message + "\n"),
    };
    match find::open(&*context.runtime, &context.board.pods(), &request).await {
        Ok(log) => {
            let frames = log.map_ok(Frame::data).map_err(Into::into).boxed();
            let mut response = text_response(StatusCode::OK, "");
            *response.body_mut() = StreamBody::new(frames).boxed_unsync();
            response
        }
        Err(error) => {
            let status = match &error {
                LogError::NoPod { .. } | LogError::NoContainer { .. } => StatusCode::NOT_FOUND,
                LogError::Waiting { .. } | LogError::NoPrevious { .. } => StatusCode::BAD_REQUEST,
                LogError::Runtime { source: RuntimeError::NotFound { .. } } => StatusCode::BAD_REQUEST,
                LogError::Runtime { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            };
            text_response(status, format!("{}\n", chain(&error)))
        }
    }
}

type Refusal = (StatusCode, String);

fn request(path: &str, query: &Query, now: Timestamp) -> Result<LogRequest, Refusal> {
    let parts: Vec<&str> = path.split('/').collect();
    let (namespace, pod, container) = match parts[..] {
        [namespace, pod, container] if parts.iter().all(|part| !part.is_empty()) => (namespace, pod, container),
        _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    };
    let seconds = number(query, "sinceSeconds", 1)?;
    let (tail, time) = (query.get("tailLines"), query.get("sinceTime"));
    if seconds.is_some() && time.is_some() {
        return Err(invalid("sinceTime", "at most one of sinceTime and sinceSeconds may be given"));
    }
    let since = match (seconds, time) {
        (Some(seconds), _) => now.checked_sub(Duration::from_secs(seconds)).ok(),
        (None, Some(time)) => Some(time.parse().map_err(|_| invalid("sinceTime", "must be a time of RFC 3339"))?),
        (None, None) => None,
    };
    // The name of old, which also takes the word for no limit.
    let legacy = query.get("tail").filter(|text| tail.is_none() && *text != "all");
    Ok(LogRequest {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        previous: query.is_set("previous"),
        follow: query.is_set("follow"),
        timestamps: query.is_set("timestamps"),
        since,
        tail: if legacy.is_some() { number(query, "tail", 0)? } else { number(query, "tailLines", 0)? },
        limit_bytes: number(query, "limitBytes", 1)?,
    })
}

fn number(query: &Query, name: &str, least: i64) -> Result<Option<u64>, Refusal> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let Ok(number) = text.parse::<i64>() else {
        return Err((StatusCode::BAD_REQUEST, format!("{name}: {text:?} is no number")));
    };
    if number < least {
        return Err(invalid(name, &format!("must be {least} or more")));
    }
    Ok(u64::try_from(number).ok())
}

fn invalid(name: &str, problem: &str) -> Refusal {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("{name}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, query: &str) -> Result<LogRequest, u16> {
        let now = Timestamp::from_second(100).unwrap();
        request(path, &Query::of(Some(query)), now).map_err(|(status, _)| status.as_u16())
    }

    #[test]
    fn every_option_of_the_kubelet_is_read() {
        let all = "follow=true&previous=true&timestamps=true&sinceSeconds=40&tailLines=0&limitBytes=7&stream=All";
        let expected = LogRequest {
            namespace: "ns".into(),
            pod: "p-n".into(),
            container: "c".into(),
            previous: true,
            follow: true,
            timestamps: true,
            since: Some(Timestamp::from_second(60).unwrap()),
            tail: Some(0),
            limit_bytes: Some(7),
        };
        assert_eq!(asked("ns/p-n/c", all).unwrap(), expected);
        let time = asked("ns/p/c", "sinceTime=1970-01-01T00:01:01%2B00:00").unwrap();
        assert_eq!(time.since.unwrap().as_second(), 61);
        assert_eq!(asked("ns/p/c", "tail=5").unwrap().tail, Some(5));
        assert_eq!(asked("ns/p/c", "tail=all").unwrap().tail, None);
        assert_eq!(asked("ns/p/c", "tail=all&tailLines=3").unwrap().tail, Some(3));
    }

    #[test]
    fn options_that_cannot_be_are_refused_with_the_kubelets_status() {
        let cases = [
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=1&sinceTime=1970-01-01T00:00:00Z", 422),
            ("sinceTime=yesterday", 422),
            ("tailLines=many", 400),
        ];
        for (query, status) in cases {
            assert_eq!(asked("ns/p/c", query), Err(status), "{query}");
        }
        for path in ["ns/p", "ns/p/c/d", "ns//c"] {
            assert_eq!(asked(path, ""), Err(404), "{path}");
        }
    }
}
