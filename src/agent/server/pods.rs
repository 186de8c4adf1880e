//! `/pods` and `/runningpods`: what is wanted, and what the runtime has.

use std::collections::BTreeMap;

use ::http::{Response, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::http::{Body, respond, text_response};
use crate::agent::board::Entry;
use crate::agent::context::Context;
use crate::error::chain;
use crate::runtime::ContainerRecord;

/// Every pod that is wanted, with its present status.
pub fn desired(context: &Context) -> Response<Body> {
    let wanted = context.board.pods().into_iter().filter(|entry| !entry.report.terminating);
    list(wanted.map(|entry: Entry| entry.to_pod()).collect())
}

/// Every pod of which a container or sandbox runs, as far as the runtime knows it: names, UIDs and images.
pub async fn running(context: &Context) -> Response<Body> {
    match context.runtime.list(&context.options.owner()).await {
        Ok(records) => list(from_records(records)),
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))),
    }
}

fn from_records(records: Vec<ContainerRecord>) -> Vec<Pod> {
    let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
    for record in records.into_iter().filter(|record| record.state.is_running()) {
        let pod = pods.entry(record.name.uid.clone()).or_insert_with(|| {
            let metadata = ObjectMeta {
                name: Some(record.name.pod.clone()),
                namespace: Some(record.name.namespace.clone()),
                uid: Some(record.name.uid.clone()),
                ..ObjectMeta::default()
            };
            Pod { metadata, spec: Some(PodSpec::default()), status: None }
        });
        if !record.is_sandbox {
            let container =
                Container { name: record.name.container, image: Some(record.image), ..Container::default() };
            pod.spec.get_or_insert_default().containers.push(container);
        }
    }
    pods.into_values().collect()
}

fn list(items: Vec<Pod>) -> Response<Body> {
    let list = List { items, ..List::default() };
    match serde_json::to_vec(&list) {
        Ok(json) => respond(StatusCode::OK, "application/json", json),
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
