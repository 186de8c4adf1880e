use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::agent::options::agent_options::AgentOptions;
use crate::agent::options::flag_shown::Shown;

/// The names of every flag of `kubelet --help`, 1.36.
const KUBELET_FLAGS: &str = include_str!("../kubelet-flags-1.36.txt");

#[test]
fn every_flag_and_field_stands_once_and_no_flag_of_a_kubelet_is_missing() {
    let names: Vec<&str> = flags().map(|(flag, _)| flag.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    let missing: Vec<_> = KUBELET_FLAGS.lines().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty() && KUBELET_FLAGS.lines().count() == 150, "{missing:?}");
    let names: Vec<&str> = fields().map(|(field, _)| field.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(all().all(|row| row.flag.is_some() || row.field.is_some()), "a row is a flag, a field, or both");
}

#[test]
fn the_flags_of_a_kubelet_have_defaults_and_no_others_but_our_own() {
    let mut names: Vec<&str> = flags().filter(|(flag, _)| flag.default.is_some()).map(|(flag, _)| flag.name).collect();
    names.sort_unstable();
    let own = pods::OWN.iter().map(OptionRow::name);
    let mut expected: Vec<&str> = KUBELET_FLAGS.lines().chain(own).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

/// A default of a flag as `/flagz` would show it.
fn shown(row: &OptionRow, text: &str) -> String {
    let given = row.kind.read(text).unwrap_or_else(|problem| panic!("{}: {problem}", row.name()));
    let mut shown = Shown::default();
    shown.add(row.kind, &given);
    shown.to_string()
}

#[test]
fn a_default_is_written_as_its_flag_is_when_it_is_given() {
    let defaults = flags().filter_map(|(flag, row)| Some((flag.name, flag.default?, row)));
    for (name, default, row) in defaults.filter(|(_, default, _)| !default.is_empty() && *default != "[]") {
        // A list in brackets is one of a single text, which flags are not given as.
        let text = default.trim_start_matches('[').trim_end_matches(']');
        let expected = if row.kind == Kind::Secret { "CLASSIFIED" } else { default };
        let shown = shown(row, text);
        assert!(shown == expected || format!("[{shown}]") == expected, "{name}: {shown} is not {default}");
    }
}

#[test]
fn what_is_given_goes_over_the_default() {
    let given = BTreeMap::from([("max-pods", "7"), ("docker-only", "true")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let values = flag_values(&given);
    assert_eq!((values["max-pods"], values["docker-only"], values["port"]), ("7", "true", "10250"));
    assert_eq!(values.len(), flags().filter(|(flag, _)| flag.default.is_some()).count() + 1);
}

/// The defaults that a row says are those that the agent takes.
#[test]
fn a_default_of_an_option_that_stands_alone_is_that_of_the_agent() {
    let mut options = AgentOptions::new("n");
    let alone = all().filter(|row| row.setting().is_some_and(|setting| !setting.is_joint()));
    let mut checked = 0;
    for row in alone {
        let Some(field) = row.field else { continue };
        let found = row.shown(&mut options);
        // The machine's own file is found where it is needed.
        let expected: Value = if field.name == "resolvConf" { json!(null) } else { field.default.parse().unwrap() };
        assert_eq!(found, expected, "{}", field.name);
        let flag = row.flag.and_then(|flag| flag.default).filter(|_| !found.is_null());
        let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        assert!(flag.is_none_or(|flag| flag == text), "{}: {flag:?} is not {text}", row.name());
        checked += 1;
    }
    assert!(checked > 25, "{checked}");
}

#[test]
fn what_is_followed_is_shown_in_the_help_and_nothing_else() {
    for (flag, row) in flags() {
        assert_eq!(flag.help.is_some(), row.setting().is_some(), "{}", flag.name);
    }
    let line = |name: &str| of_flag(name).unwrap().help_line();
    assert_eq!(line("sync-frequency"), "How often every pod is looked at whatever its events say [default: 1m]");
    assert_eq!(line("streaming-connection-idle-timeout"), "How long a stream may be silent [default: 4h]");
    assert_eq!(line("address"), "Address of the read-only port [default: 127.0.0.1]");
    assert_eq!(line("cluster-dns"), "Name servers of pods");
    assert_eq!(line("http-check-frequency"), "How often it is asked [default: 20s]");
}

#[test]
fn a_row_sets_its_option_by_its_flag_and_by_its_field_and_prints_it() {
    for (name, flag, field, printed) in [
        ("sync-frequency", "1m30s", "1m30s", json!("1m30s")),
        ("seccomp-default", "true", "true", json!(true)),
        ("rotate-certificates", "true", "true", json!(true)),
        ("oom-score-adj", "-5", "-5", json!(-5)),
        ("container-log-max-files", "3", "3", json!(3)),
        ("container-log-max-size", "1Mi", "1Mi", json!("1Mi")),
        ("cluster-dns", "1.1.1.1,2.2.2.2", "[1.1.1.1, 2.2.2.2]", json!(["1.1.1.1", "2.2.2.2"])),
        ("cgroup-root", "/a/b/", "/a/b/", json!("a/b")),
        ("node-status-max-images", "-1", "-1", json!(-1)),
    ] {
        let row = of_flag(name).unwrap();
        let setting = row.setting().unwrap();
        let (mut by_flag, mut by_field) = (AgentOptions::new("n"), AgentOptions::new("n"));
        setting.by_flag(&mut by_flag, &row.dashed(), &row.kind.read(flag).unwrap()).unwrap();
        let documents = crate::yaml::documents(field).unwrap();
        let mut node = crate::yaml::Node::parse(&documents[0]).unwrap();
        setting.by_field(&mut by_field, &mut node).unwrap();
        assert_eq!(by_flag, by_field, "{name}");
        assert_ne!(by_flag, AgentOptions::new("n"), "{name}");
        assert_eq!(row.shown(&mut by_flag), printed, "{name}");
    }
}
