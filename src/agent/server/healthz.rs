//! `/healthz` of the kubelet's own port: named checks, of which `syncloop` says whether the agent still turns.

pub mod local;

use std::time::Duration;

use ::http::{Response, StatusCode};

use super::http::{Body, text_response};
use super::query::Query;
use crate::agent::context::Context;

/// A loop that has not turned for so long is stuck, unless pods are looked at less often than half of it.
const STUCK: Duration = Duration::from_secs(300);

type Check = (&'static str, fn(&Context) -> bool);

/// The checks, by name.
const CHECKS: [Check; 3] = [("ping", |_| true), ("log", |_| true), ("syncloop", turns)];

fn turns(context: &Context) -> bool {
    context.metrics.since_turn() <= STUCK.max(context.options.sync_frequency.saturating_mul(2))
}

/// How each check is now, by its name.
pub fn checks(context: &Context) -> impl Iterator<Item = (&'static str, bool)> {
    CHECKS.iter().map(|(name, check)| (*name, check(context)))
}

/// The answer to `/healthz` (an empty name: all checks) and `/healthz/NAME`; None where there is no such check.
pub fn answer(context: &Context, name: &str, query: &Query) -> Option<Response<Body>> {
    let chosen: Vec<&Check> = CHECKS.iter().filter(|(check, _)| name.is_empty() || *check == name).collect();
    if chosen.is_empty() {
        return None;
    }
    let results: Vec<(&str, bool)> = chosen.iter().map(|(name, check)| (*name, check(context))).collect();
    let well = results.iter().all(|(_, well)| *well);
    if well && !query.has("verbose") {
        return Some(text_response(StatusCode::OK, "ok"));
    }
    let lines: String = results
        .iter()
        .map(|(name, well)| if *well { format!("[+]{name} ok\n") } else { format!("[-]{name} failed\n") })
        .collect();
    Some(match well {
        true => text_response(StatusCode::OK, format!("{lines}healthz check passed\n")),
        false => text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}healthz check failed\n")),
    })
}
