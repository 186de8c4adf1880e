//! Pages for people who look into one agent, `/statusz` and `/flagz`, in the form of Kubernetes' components of 1.36: text that
//! promises no program that it stays, and objects of `config.k8s.io` for who asks for them by
//! `Accept: application/json;v=v1beta1;g=config.k8s.io;as=Flagz`.

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::http::{Body, respond};
use super::negotiate::{Form, ResponseFormat, negotiate};
use crate::agent::control::report::AgentReport;
use crate::agent::options::AgentOptions;
use crate::agent::options::{Gates, table};
use crate::yaml;

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
                       guarantees and is for debugging purposes only.";
/// The paths that there are, by their first part.
const PATHS: [&str; 11] = [
    "/configz",
    "/containerLogs",
    "/exec",
    "/flagz",
    "/healthz",
    "/logs",
    "/metrics",
    "/pods",
    "/runningpods",
    "/stats",
    "/statusz",
];

/// `/statusz`: since when the agent runs, and what it is. An agent has no version of Go, and stands in for no other version.
pub fn status(agent: &AgentReport, gates: Gates, headers: &HeaderMap, now: Timestamp) -> Response<Body> {
    let paths: Vec<&str> = PATHS.into_iter().filter(|path| gates.flagz || *path != "/flagz").collect();
    let up = now.duration_since(agent.started_at).as_secs().max(0);
    let text = || format!("\n{}", status_lines(agent, up, &paths));
    let fields = json!({
        "startTime": agent.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "uptimeSeconds": up,
        "goVersion": "",
        "binaryVersion": agent.version,
        "paths": paths,
    });
    page("Statusz", headers, text, fields)
}

fn status_lines(agent: &AgentReport, up: i64, paths: &[&str]) -> String {
    let started = agent.started_at.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S UTC %Y").to_string();
    let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
    format!(
        "Started: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nBinary version: {}\nPaths: {}\n",
        agent.version,
        paths.join(" ")
    )
}

/// `/flagz`: every flag with its value, given or by default. As with the kubelet, what the configuration file says is not
/// among them: `/configz` has that. Values that may hold passwords are masked.
pub fn flags(options: &AgentOptions, headers: &HeaderMap) -> Response<Body> {
    let flags = table::flag_values(&options.given_flags);
    let text = || flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    page("Flagz", headers, text, json!({ "flags": flags }))
}

/// The answer to a request with these headers: as text, or as an object of this kind with these fields.
fn page(kind: &str, headers: &HeaderMap, text: impl FnOnce() -> String, fields: Value) -> Response<Body> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    match negotiate(&accept.collect::<Vec<_>>().join(","), kind) {
        Some(ResponseFormat::Text) => {
            let text = format!("\nkubelet {}\n{WARNING}\n{}", kind.to_lowercase(), text());
            respond(StatusCode::OK, "text/plain; charset=utf-8", text)
        }
        Some(ResponseFormat::Object { form, version }) => object(kind, form, version, fields),
        None => not_acceptable(),
    }
}

fn object(kind: &str, form: Form, version: &str, fields: Value) -> Response<Body> {
    let mut object = json!({
        "kind": kind,
        "apiVersion": format!("config.k8s.io/{version}"),
        "metadata": { "name": "kubelet" },
    });
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    let (name, body) = match form {
        Form::Json => ("json", format!("{object:#}\n")),
        Form::Yaml => ("yaml", yaml::to_string(&object).unwrap_or_default()),
    };
    let mut response = respond(StatusCode::OK, "application/json", body);
    if let Ok(value) = HeaderValue::try_from(format!("application/{name};g=config.k8s.io;v={version};as={kind}")) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    let path = kind.to_lowercase();
    let old = format!("299 - \"This version of the {path} endpoint is deprecated. Please use a newer version.\"");
    if version == "v1alpha1"
        && let Ok(value) = HeaderValue::try_from(old)
    {
        response.headers_mut().insert(header::WARNING, value);
    }
    response
}

fn not_acceptable() -> Response<Body> {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "only the following media types are accepted: application/json, application/yaml, text/plain",
        "reason": "NotAcceptable",
        "code": 406,
    });
    respond(StatusCode::NOT_ACCEPTABLE, "application/json", format!("{status:#}\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::http::Request;
    use http_body_util::BodyExt;
    use tokio_util::sync::CancellationToken;

    use super::super::Router;
    use super::*;
    use crate::agent::context::Context;
    use crate::agent::probe::Prober;
    use crate::runtime::ContainerRuntime;
    use crate::testing::runtime::FakeRuntime;

    /// Status, content type, warning and text of what is answered to this `Accept`.
    async fn asked(accept: &str, answer: impl FnOnce(&HeaderMap) -> Response<Body>) -> (u16, String, String, String) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        }
        let response = answer(&headers);
        let header =
            |name| response.headers().get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap()).to_owned();
        let (status, kind, warning) =
            (response.status().as_u16(), header(header::CONTENT_TYPE), header(header::WARNING));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, warning, String::from_utf8(body.to_vec()).unwrap())
    }

    fn options() -> AgentOptions {
        let given = [("max-pods", "0x10"), ("manifest-url-header", "X:secret"), ("node-labels", "b=2,a=1"), ("v", "4")];
        let given_flags = crate::agent::options::Flags::read(given).unwrap().shown();
        AgentOptions { given_flags, ..AgentOptions::new("node1") }
    }

    #[tokio::test]
    async fn every_flag_is_told_with_its_value_and_without_passwords() {
        let (status, kind, _, text) = asked("", |headers| flags(&options(), headers)).await;
        assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["", "kubelet flagz", WARNING]);
        for line in [
            "address=0.0.0.0",
            "max-pods=16",
            "manifest-url-header=CLASSIFIED",
            "node-labels=a=1,b=2",
            "sync-frequency=1m0s",
            "v=4",
        ] {
            assert!(lines.contains(&line), "{line}: {text}");
        }
        assert_eq!(lines.len(), 3 + 152);
        let names = lines[3..].iter().map(|line| line.split_once('=').unwrap().0);
        assert!(names.is_sorted() && !text.contains("X:secret"));
    }

    #[tokio::test]
    async fn flags_are_an_object_for_who_asks_for_one() {
        let of = async |accept: &str| asked(accept, |headers| flags(&options(), headers)).await;
        let json = "application/json;v=v1beta1;g=config.k8s.io;as=Flagz";
        let (status, kind, warning, text) = of(json).await;
        assert_eq!(
            (status, kind.as_str(), warning.as_str()),
            (200, "application/json;g=config.k8s.io;v=v1beta1;as=Flagz", "")
        );
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&object["kind"], &object["apiVersion"], &object["metadata"]),
            (&json!("Flagz"), &json!("config.k8s.io/v1beta1"), &json!({"name": "kubelet"}))
        );
        assert_eq!((&object["flags"]["max-pods"], object["flags"].as_object().unwrap().len()), (&json!("16"), 152));
        let (_, kind, warning, text) = of(&json.replace("json", "yaml").replace("beta", "alpha")).await;
        assert_eq!(kind, "application/yaml;g=config.k8s.io;v=v1alpha1;as=Flagz");
        assert_eq!(warning, "299 - \"This version of the flagz endpoint is deprecated. Please use a newer version.\"");
        assert!(
            text.contains("\n  max-pods: \"16\"\n") && text.contains("apiVersion: config.k8s.io/v1alpha1\n"),
            "{text}"
        );
        let (status, kind, _, text) = of("application/json").await;
        assert_eq!((status, kind.as_str()), (406, "application/json"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["reason"], "NotAcceptable");
    }

    #[tokio::test]
    async fn a_page_whose_gate_is_closed_is_not_there() {
        let status = async |gates: Gates, path: &str| {
            let dir = tempfile::tempdir().unwrap();
            let mut options = AgentOptions { gates, ..options() };
            options.root_dir = dir.path().join("root");
            let runtime: Arc<dyn ContainerRuntime> = Arc::new(FakeRuntime::new());
            let checker = Arc::new(Prober::new(Arc::clone(&runtime)));
            let context = Context::new(options, runtime, checker, CancellationToken::new());
            Router::new(context, true).answer(&Request::get(path).body(()).unwrap()).await.status().as_u16()
        };
        let (open, closed) = (Gates::default(), Gates { flagz: false, statusz: false, ..Gates::default() });
        for path in ["/flagz", "/statusz"] {
            assert_eq!((status(open, path).await, status(closed, path).await), (200, 404), "{path}");
        }
    }

    #[tokio::test]
    async fn the_status_says_since_when_the_agent_runs() {
        let mut agent = crate::testing::report::report(vec![]).agent;
        (agent.started_at, agent.version) = (Timestamp::UNIX_EPOCH, "1.2.3".into());
        let now = Timestamp::from_second(3723).unwrap();
        let gates = Gates { flagz: false, ..Gates::default() };
        let of = async |accept: &str| asked(accept, |headers| status(&agent, gates, headers, now)).await.3;
        let text = of("text/plain").await;
        let expected = "\n\nStarted: Thu Jan  1 00:00:00 UTC 1970\nUp: 1 hr 02 min 03 sec\nBinary version: 1.2.3\n\
                        Paths: /configz /containerLogs /exec /healthz ";
        assert!(text.contains(expected), "{text}");
        let object: Value =
            serde_json::from_str(&of("application/json;v=v1beta1;g=config.k8s.io;as=Statusz").await).unwrap();
        let fields = ["startTime", "uptimeSeconds", "binaryVersion"].map(|name| object[name].clone());
        assert_eq!(fields, [json!("1970-01-01T00:00:00Z"), json!(3723), json!("1.2.3")]);
        assert!(object["paths"].as_array().unwrap().contains(&json!("/statusz")));
    }
}
