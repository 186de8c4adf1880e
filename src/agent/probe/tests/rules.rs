use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::ProbeKind::{Liveness, Readiness, Startup};
use super::super::rules::Rules;
use super::super::*;
use super::{container, error, failure, success};

/// Rules for a container with these probes; each is a connection to port 80 with the fields given.
fn rules(probes: &[(&str, serde_json::Value)]) -> Rules {
    let mut value = json!({"name": "web"});
    for (field, fields) in probes {
        value[*field] = fields.clone();
        value[*field]["tcpSocket"] = json!({"port": 80});
    }
    Rules::new("id".into(), Arc::new(Probes::of(&container(value)).0))
}

fn state(rules: &Rules) -> (bool, bool, bool) {
    let health = rules.health();
    (health.started, health.ready, health.healthy)
}

#[test]
fn a_container_without_probes_is_started_ready_and_healthy_as_soon_as_it_runs() {
    let rules = rules(&[]);
    assert_eq!(state(&rules), (true, true, true));
    assert_eq!(rules.wants_eager(), None);
}

#[test]
fn readiness_begins_as_failure_and_liveness_as_success() {
    assert_eq!(state(&rules(&[("readinessProbe", json!({}))])), (true, false, false));
    assert_eq!(state(&rules(&[("livenessProbe", json!({}))])), (true, true, false), "ready, but not seen to answer");
    assert_eq!(state(&rules(&[("startupProbe", json!({}))])), (false, false, false));
}

#[test]
fn thresholds_count_results_in_a_row() {
    let mut rules = rules(&[("readinessProbe", json!({"successThreshold": 2, "failureThreshold": 3}))]);
    let script = [
        (success(), false),
        (failure("x"), false),
        (success(), false),
        (success(), true),
        (failure("x"), true),
        (failure("x"), true),
        (success(), true),
        (failure("x"), true),
        (failure("x"), true),
        (failure("x"), false),
        (success(), false),
        (success(), true),
    ];
    for (step, (outcome, ready)) in script.iter().enumerate() {
        rules.record(Readiness, outcome);
        assert_eq!(rules.health().ready, *ready, "step {step}");
    }
}

#[test]
fn an_error_counts_neither_as_failure_nor_between_failures() {
    let mut rules = rules(&[("livenessProbe", json!({"failureThreshold": 2}))]);
    rules.record(Liveness, &failure("x"));
    for _ in 0..5 {
        rules.record(Liveness, &error("no such port"));
    }
    assert!(!rules.condemned());
    assert_eq!(rules.health().message.unwrap(), "Liveness probe errored: no such port");
    rules.record(Liveness, &failure("x"));
    assert!(rules.condemned(), "the second failure in a row");
}

#[test]
fn liveness_failing_for_good_condemns_the_container_with_the_probes_own_grace() {
    let mut rules = rules(&[("livenessProbe", json!({"failureThreshold": 2, "terminationGracePeriodSeconds": 7}))]);
    rules.record(Liveness, &success());
    rules.record(Liveness, &failure("a"));
    assert!(rules.health().healthy && rules.health().must_restart.is_none());
    rules.record(Liveness, &failure("b"));
    let health = rules.health();
    assert!(!health.healthy);
    assert_eq!(
        health.must_restart.unwrap(),
        MustRestart {
            kind: Liveness,
            message: "Liveness probe failed 2 times in a row: b".into(),
            grace: Some(Duration::from_secs(7))
        }
    );
    rules.record(Liveness, &success());
    rules.record_eager(Liveness, &success());
    assert!(rules.condemned() && !rules.health().healthy, "nothing but a new instance takes it back");
}

#[test]
fn startup_failing_for_good_condemns_and_succeeding_ends_it() {
    let mut failing = rules(&[("startupProbe", json!({"failureThreshold": 1}))]);
    failing.record(Startup, &failure("x"));
    assert_eq!(failing.health().must_restart.unwrap().kind, Startup);
    assert_eq!(failing.wants_eager(), None);

    let mut passing = rules(&[("startupProbe", json!({"failureThreshold": 1}))]);
    passing.record(Startup, &success());
    assert_eq!(state(&passing), (true, true, true));
    passing.record(Startup, &failure("x"));
    assert_eq!(state(&passing), (true, true, true), "a startup probe ends with its success");
}

#[test]
fn an_eager_success_makes_healthy_and_not_ready_and_eager_failures_count_for_nothing() {
    let mut rules = rules(&[("readinessProbe", json!({"failureThreshold": 1}))]);
    for _ in 0..100 {
        rules.record_eager(Readiness, &failure("connection refused"));
    }
    assert_eq!(rules.health().message.unwrap(), "Readiness probe failed: connection refused");
    rules.record_eager(Readiness, &success());
    assert_eq!(state(&rules), (true, false, true));
    assert_eq!(rules.health().message, None);
    assert_eq!(rules.wants_eager(), None);
    rules.record(Readiness, &success());
    assert_eq!(state(&rules), (true, true, true));
}

#[test]
fn once_healthy_health_follows_the_readiness_probe_by_its_threshold() {
    let mut rules = rules(&[("readinessProbe", json!({"failureThreshold": 2}))]);
    rules.record_eager(Readiness, &success());
    rules.record(Readiness, &failure("x"));
    assert!(rules.health().healthy);
    rules.record(Readiness, &failure("x"));
    assert_eq!(state(&rules), (true, false, false));
    assert_eq!(rules.wants_eager(), None, "no more eager asking");
    rules.record(Readiness, &success());
    assert_eq!(state(&rules), (true, true, true));
}

#[test]
fn readiness_failures_from_before_the_first_answer_do_not_hide_it() {
    let mut rules = rules(&[("readinessProbe", json!({"failureThreshold": 1}))]);
    rules.record(Readiness, &failure("x"));
    assert!(!rules.health().healthy);
    rules.record_eager(Readiness, &success());
    assert_eq!(state(&rules), (true, false, true));
}

#[test]
fn a_success_by_the_probes_own_rules_makes_healthy_too() {
    let mut rules = rules(&[("readinessProbe", json!({}))]);
    rules.record(Readiness, &success());
    assert_eq!(state(&rules), (true, true, true));
    assert_eq!(rules.wants_eager(), None);
}

#[test]
fn the_eager_checker_goes_on_to_the_startup_probe_and_its_success_counts() {
    let mut rules = rules(&[("startupProbe", json!({})), ("readinessProbe", json!({})), ("livenessProbe", json!({}))]);
    assert_eq!(rules.wants_eager(), Some(Readiness));
    rules.record_eager(Readiness, &success());
    assert_eq!(state(&rules), (false, false, true));
    assert_eq!(rules.wants_eager(), Some(Startup));
    rules.record_eager(Startup, &failure("not yet"));
    assert_eq!(rules.wants_eager(), Some(Startup));
    rules.record_eager(Startup, &success());
    assert_eq!(state(&rules), (true, false, true));
    assert_eq!(rules.wants_eager(), None);
}
