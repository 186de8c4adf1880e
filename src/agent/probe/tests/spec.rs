use std::time::Duration;

use serde_json::json;

use super::super::*;
use super::container;

#[test]
fn a_probe_gets_the_defaults_of_the_kubelet() {
    let (probes, problems) = Probes::of(&container(json!({
        "name": "web", "livenessProbe": {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 5},
        "readinessProbe": {"httpGet": {"port": 80}, "terminationGracePeriodSeconds": 5}
    })));
    assert_eq!(problems, Vec::<String>::new());
    let liveness = probes.liveness.unwrap();
    assert_eq!(liveness.initial_delay, Duration::ZERO);
    assert_eq!(liveness.period, Duration::from_secs(10));
    assert_eq!(liveness.timeout, Duration::from_secs(1));
    assert_eq!((liveness.success_threshold, liveness.failure_threshold), (1, 3));
    assert_eq!(liveness.grace, Some(Duration::from_secs(5)));
    let readiness = probes.readiness.unwrap();
    assert_eq!(readiness.grace, None, "a readiness probe stops nothing");
    assert_eq!(
        readiness.target("id", None),
        Target::Http { tls: false, host: "127.0.0.1".into(), port: 80, path: "/".into(), headers: vec![] }
    );
}

#[test]
fn a_host_goes_before_the_pods_address_and_that_before_this_machine() {
    let of = |host: Option<&str>, ip: Option<&str>| {
        let probe = json!({"tcpSocket": {"port": 80, "host": host}});
        let (probes, _) = Probes::of(&container(json!({"name": "web", "livenessProbe": probe})));
        match probes.liveness.unwrap().target("id", ip) {
            Target::Tcp { host, .. } => host,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(Some("10.9.9.9"), Some("172.17.0.2")), "10.9.9.9");
    assert_eq!(of(None, Some("172.17.0.2")), "172.17.0.2");
    assert_eq!(of(None, None), "127.0.0.1");
    assert_eq!(of(Some("[::1]"), None), "::1");
    assert_eq!(of(Some(""), None), "127.0.0.1");
}

#[test]
fn a_port_is_a_number_or_a_name_of_the_same_container() {
    let of = |port: serde_json::Value| {
        let (probes, problems) = Probes::of(&container(json!({
            "name": "web", "ports": [{"name": "http", "containerPort": 8080}],
            "livenessProbe": {"tcpSocket": {"port": port}}
        })));
        assert_eq!(problems, Vec::<String>::new());
        probes.liveness.unwrap().target("id", None)
    };
    assert_eq!(of(json!("http")), Target::Tcp { host: "127.0.0.1".into(), port: 8080 });
    assert_eq!(of(json!("81")), Target::Tcp { host: "127.0.0.1".into(), port: 81 });
    assert!(matches!(of(json!("metrics")), Target::Unresolvable(why) if why.contains("\"metrics\"")));
    assert!(matches!(of(json!(70000)), Target::Unresolvable(_)));
    assert!(matches!(of(json!(0)), Target::Unresolvable(_)));
}

#[test]
fn what_cannot_be_probed_is_said_and_left_out_and_the_other_probes_stay() {
    let (probes, problems) = Probes::of(&container(json!({
        "name": "web",
        "startupProbe": {"exec": {"command": []}},
        "livenessProbe": {"httpGet": {"port": 1, "scheme": "ftp"}},
        "readinessProbe": {"exec": {"command": ["true"]}}
    })));
    assert_eq!((probes.startup, probes.liveness), (None, None));
    assert!(probes.readiness.is_some());
    assert_eq!(
        problems,
        [
            "startupProbe of container web: exec has no command",
            "livenessProbe of container web: httpGet has scheme \"ftp\", which is neither HTTP nor HTTPS"
        ]
    );
    for (probe, word) in [
        (json!({}), "has no exec"),
        (json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}), "more than one"),
        (json!({"httpGet": {"port": 1, "scheme": "ftp"}}), "\"ftp\""),
    ] {
        let (_, problems) = Probes::of(&container(json!({"name": "web", "livenessProbe": probe})));
        assert!(problems.len() == 1 && problems[0].contains(word), "{problems:?}");
    }
}

#[test]
fn the_eager_checker_asks_readiness_before_startup_before_liveness() {
    let probe = json!({"tcpSocket": {"port": 80}});
    let of = |names: &[&str]| {
        let mut value = json!({"name": "web"});
        names.iter().for_each(|name| value[*name] = probe.clone());
        Probes::of(&container(value)).0.eager_kind()
    };
    assert_eq!(of(&["livenessProbe", "readinessProbe", "startupProbe"]), Some(ProbeKind::Readiness));
    assert_eq!(of(&["livenessProbe", "startupProbe"]), Some(ProbeKind::Startup));
    assert_eq!(of(&["livenessProbe"]), Some(ProbeKind::Liveness));
    assert_eq!(of(&[]), None);
}

#[test]
fn variables_are_expanded_in_exec_commands_alone_and_from_what_is_written() {
    let (probes, _) = Probes::of(&container(json!({
        "name": "web",
        "env": [
            {"name": "A", "value": "b"}, {"name": "R", "value": "$(A)"},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        ],
        "livenessProbe": {"exec": {"command": ["test", "$(A)", "$(R)", "x$(N)", "$(B)", "$$(A)"]}},
        "readinessProbe": {"httpGet": {"port": 1, "path": "/$(A)"}}
    })));
    let command = ["test", "b", "$(A)", "x", "$(B)", "$(A)"].map(str::to_owned).to_vec();
    assert_eq!(probes.liveness.unwrap().action, Action::Exec { command });
    assert!(matches!(probes.readiness.unwrap().action, Action::Http(get) if get.path == "/$(A)"));
}

#[test]
fn grpc_asks_the_pods_address_for_a_service() {
    let of = |probe: serde_json::Value, ip: Option<&str>| {
        let (probes, problems) = Probes::of(&container(json!({"name": "web", "livenessProbe": {"grpc": probe}})));
        assert_eq!(problems, Vec::<String>::new());
        probes.liveness.unwrap().target("id", ip)
    };
    let grpc = |host: &str, service: &str| Target::Grpc { host: host.into(), port: 2379, service: service.into() };
    assert_eq!(of(json!({"port": 2379}), None), grpc("127.0.0.1", ""));
    assert_eq!(of(json!({"port": 2379, "service": "kv"}), Some("10.0.0.7")), grpc("10.0.0.7", "kv"));
    assert!(matches!(of(json!({"port": 70000}), None), Target::Unresolvable(_)));
}
