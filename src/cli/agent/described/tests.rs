use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::agent::events::{About, Kind};

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-cp1", "labels": {"app": "web"}},
        "spec": {
            "nodeName": "cp1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "containers": [{
                "name": "main", "image": "x:1", "command": ["sh", "-c"], "args": ["run\nit"],
                "ports": [{"containerPort": 80, "hostPort": 8080}],
                "resources": {"requests": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": 80, "scheme": "HTTPS"}, "periodSeconds": 5},
                "env": [{"name": "A", "value": "b"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}],
            }],
            "volumes": [{"name": "data", "hostPath": {"path": "/srv", "type": ""}}],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.5", "podIP": "10.0.0.5", "qosClass": "Burstable",
            "startTime": "1970-01-01T00:00:10Z",
            "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "[main]"}],
            "containerStatuses": [{
                "name": "main", "image": "x:1", "imageID": "docker://sha256:1", "containerID": "docker://1",
                "ready": false, "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "1970-01-01T00:01:00Z"}},
            }],
        },
    }))
    .unwrap()
}

fn event(uid: &str) -> Event {
    Event {
        sequence: 1,
        about: About::Pod,
        namespace: "kube-system".into(),
        pod: "web-cp1".into(),
        uid: uid.to_owned(),
        container: Some("main".into()),
        kind: Kind::Warning,
        reason: "BackOff".into(),
        message: "restarting".into(),
        count: 1,
        first: Timestamp::from_second(60).unwrap(),
        last: Timestamp::from_second(60).unwrap(),
    }
}

#[test]
fn a_pod_is_told_as_kubectl_tells_it() {
    let report = crate::testing::report::pod("web", "hash");
    let event = event(&report.uid);
    let now = Timestamp::from_second(70).unwrap();
    insta::assert_snapshot!(text(&PodView { pod: pod(), report }, &[event], now), @r"
    Name:               web-cp1
    Namespace:          kube-system
    Node:               cp1/10.0.0.5
    Start Time:         1970-01-01T00:00:10Z (60s ago)
    Labels:             app=web
    Annotations:        <none>
    Manifest:           /etc/kubernetes/manifests/web.yaml
    Status:             Running
    Healthy:            False since 1970-01-01T00:00:00Z (70s ago)
    IP:                 10.0.0.5
    Containers:
      main:
        Container ID:   docker://1
        Image:          x:1
        Image ID:       docker://sha256:1
        Ports:          80/TCP (host 8080)
        Command:        sh
                        -c
        Args:           run it
        State:          Waiting
          Reason:       CrashLoopBackOff
          Message:      back-off 10s
        Last State:     Terminated
          Reason:       Error
          Exit Code:    1
          Finished:     1970-01-01T00:01:00Z (10s ago)
        Ready:          False
        Restart Count:  2
        Requests:       cpu=100m
        Liveness:       http-get https://:80/healthz delay=0s timeout=1s period=5s #success=1 #failure=3
        Environment:    A=b
        Mounts:         /data from data (ro)
    Conditions:
      Ready                      False  ContainersNotReady: [main]
    Volumes:            data: hostPath path=/srv
    QoS Class:          Burstable
    Restart Policy:     Always
    Grace Period:       30s
    Events:
      LAST SEEN   TYPE      REASON    OBJECT                       MESSAGE
      10s         Warning   BackOff   kube-system/web-cp1 (main)   restarting
    ");
}
