//! 125 to 128: what is measured of pods, by the pages that tools read.

use std::collections::{BTreeMap, BTreeSet};

use kubeboot::testing::real::image::FOREVER;
use kubeboot::testing::real::pod::Pod;
use kubeboot::testing::real::ports;
use serde_json::{Value, json};

use crate::node::Node;

/// A pod with a network and a volume of its own, which has written 64 KiB into the volume and beside it, and a log.
async fn writer(node: &mut Node) -> u16 {
    node.serve();
    node.start();
    let script = format!("dd if=/dev/zero of=/v/f bs=65536 count=1; cp /v/f /tmp-f; echo said; : > /v/done; {FOREVER}");
    let pod = Pod::new("web")
        .own_network()
        .script(&script)
        .spec("volumes", json!([{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/"}}]))
        .main("volumeMounts", json!([{"name": "v", "mountPath": "/v"}]))
        .main("readinessProbe", json!({"exec": {"command": ["true"]}, "periodSeconds": 1}));
    let report = node.up(&pod).await;
    let volume = node.root().join("pods").join(&report.uid).join("volumes/kubernetes.io~empty-dir/v");
    node.eventually("it has written", || std::future::ready(volume.join("done").exists().then_some(()))).await;
    node.read_only_port()
}

fn page(port: u16, path: &str) -> String {
    ports::get(port, path).unwrap().1
}

/// Every family is described once, before its values, and every series of a histogram is complete.
fn well_formed(page: &str) {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut help, mut buckets, mut seen) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for line in page.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, ..] => assert!(help.insert(*name), "{name} is described twice"),
            ["#", "TYPE", name, kind] => assert!(kinds.insert(name, kind).is_none(), "{name} has two types"),
            _ => {
                let series =
                    line.rsplit_once("} ").map_or_else(|| words[0].to_owned(), |(series, _)| format!("{series}}}"));
                assert!(seen.insert(series.clone()), "{series} is there twice");
                let name = series.split('{').next().unwrap();
                let of = |suffix: &str| name.strip_suffix(suffix).filter(|base| kinds.get(base) == Some(&"histogram"));
                if let Some(base) = of("_bucket") {
                    if series.contains("le=\"+Inf\"") {
                        *buckets.entry(base.to_owned()).or_insert(0) += 1;
                    }
                } else if let Some(base) = of("_count") {
                    *buckets.entry(base.to_owned()).or_insert(0) -= 1;
                } else {
                    assert!(of("_sum").is_some() || kinds.contains_key(name), "{line} has no type");
                }
            }
        }
    }
    assert!(help.iter().eq(kinds.keys()), "each has both: {help:?}");
    let torn: Vec<_> = buckets.into_iter().filter(|(_, rest)| *rest != 0).collect();
    assert!(torn.is_empty(), "{torn:?}");
}

fn has(page: &str, start: &str) {
    assert!(page.lines().any(|line| line.starts_with(start)), "{start} is missing in\n{page}");
}

pub async fn b125_starts_workers_lists_and_volumes_are_timed(node: &mut Node) {
    let port = writer(node).await;
    let metrics = page(port, "/metrics");
    for start in [
        "kubelet_pod_start_duration_seconds_count 1",
        "kubelet_pod_start_duration_seconds_bucket{le=\"3600\"} 1",
        "kubelet_pod_worker_duration_seconds_count{operation_type=\"create\"} 1",
        "kubelet_pod_worker_start_duration_seconds_count 1",
        "kubelet_containers_per_pod_count_bucket{le=\"1\"} 1",
        "kubelet_pleg_relist_duration_seconds_bucket{le=\"0.005\"} ",
        "kubelet_pleg_relist_interval_seconds_count ",
        "kubelet_pleg_last_seen_seconds ",
        "kubelet_started_containers_total{container_type=\"container\"} 1",
        "kubelet_started_pods_total 1",
        "kubelet_run_podsandbox_duration_seconds_count{runtime_handler=\"\"} 1",
        "storage_operation_duration_seconds_count{volume_plugin=\"kubernetes.io/empty-dir\",\
         operation_name=\"volume_mount\",status=\"success\",migrated=\"false\"} ",
        "volume_manager_total_volumes{plugin_name=\"kubernetes.io/host-path\",state=\"actual_state_of_world\"} 1",
        "process_max_fds ",
        "process_virtual_memory_bytes ",
    ] {
        has(&metrics, start);
    }
    node.run(&Pod::new("bad").main("image", "127.0.0.1:1/none:1").main("imagePullPolicy", "Never"));
    let failed = "kubelet_started_containers_errors_total{container_type=\"container\",code=\"ErrImageNeverPull\"} ";
    let told = || std::future::ready(page(port, "/metrics").lines().any(|line| line.starts_with(failed)).then_some(()));
    node.eventually("a start that fails is counted with its reason", told).await;
    let probes = page(port, "/metrics/probes");
    has(&probes, "process_start_time_seconds ");
    has(&probes, "prober_probe_duration_seconds_count{container=\"main\",namespace=\"default\",pod=\"web-node1\",");
    for path in ["/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes", "/metrics/slis"] {
        well_formed(&page(port, path));
    }
}

pub async fn b126_the_summary_has_volumes_logs_waits_and_system_containers(node: &mut Node) {
    let port = writer(node).await;
    let summary: Value = serde_json::from_str(&page(port, "/stats/summary")).unwrap();
    let (pod, machine) = (&summary["pods"][0], &summary["node"]);
    let volume = &pod["volume"][0];
    assert_eq!((&volume["name"], pod["volume"].as_array().unwrap().len()), (&json!("v"), 1), "no hostPath: {pod}");
    assert_eq!(volume["inodesUsed"], 3, "{volume}");
    let container = &pod["containers"][0];
    let used = |of: &Value| {
        for field in ["time", "capacityBytes", "availableBytes", "inodes", "inodesFree"] {
            assert!(!of[field].is_null(), "{field} in {of}");
        }
        of["usedBytes"].as_u64().unwrap()
    };
    assert!(used(volume) >= 64 << 10, "{volume}");
    assert!(used(&container["rootfs"]) >= 64 << 10, "{container}");
    assert!(used(&container["logs"]) > 0 && container["logs"]["inodesUsed"] == 1, "{container}");
    let all = used(volume) + used(&container["rootfs"]) + used(&container["logs"]);
    assert!(used(&pod["ephemeral-storage"]) >= all, "{pod}");
    assert!(pod["process_stats"]["process_count"].as_u64() >= Some(1), "{pod}");
    assert_eq!(pod["network"]["name"], "eth0", "{pod}");
    for of in [pod, container, machine] {
        assert!(of["cpu"]["psi"]["some"]["total"].is_u64() && of["memory"]["psi"]["full"]["avg10"].is_f64(), "{of}");
        assert!(of["io"]["psi"]["some"]["total"].is_u64(), "{of}");
    }
    let names: Vec<&str> =
        machine["systemContainers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kubelet", "runtime", "pods"]);
    for one in machine["systemContainers"].as_array().unwrap() {
        assert!(one["startTime"].is_string() && one["memory"]["workingSetBytes"].as_u64() > Some(0), "{one}");
    }
    assert!(used(&machine["fs"]) > 0, "{machine}");
    // A containerd that has just begun counts its images only a little later.
    for of in [&machine["runtime"]["imageFs"], &machine["runtime"]["containerFs"]] {
        used(of);
    }
    assert!(machine["rlimit"]["maxpid"].is_u64() && machine["memory"]["pageFaults"].as_u64() > Some(0), "{machine}");
    let brief: Value = serde_json::from_str(&page(port, "/stats/summary?only_cpu_and_memory=true")).unwrap();
    assert!(brief["pods"][0]["cpu"].is_object() && brief["pods"][0]["volume"].is_null(), "{brief}");
}

pub async fn b127_cadvisors_page_has_what_is_around_containers_and_what_they_have_open(node: &mut Node) {
    let port = writer(node).await;
    let used = page(port, "/metrics/cadvisor");
    let of_main =
        ["container_file_descriptors", "container_sockets", "container_threads_max", "container_memory_failcnt"];
    for name in of_main {
        has(&used, &format!("{name}{{container=\"main\",id=\"/"));
    }
    let around = |name: &str, is: &dyn Fn(&str) -> bool| {
        let mut lines = used.lines().filter(|line| line.starts_with(&format!("{name}{{container=\"\",")));
        assert!(lines.any(is), "{name} is missing in\n{used}");
    };
    around("container_cpu_usage_seconds_total", &|line| line.contains("id=\"/\""));
    around("container_memory_working_set_bytes", &|line| line.contains("pod=\"web-node1\""));
    around("container_network_receive_bytes_total", &|line| line.contains("interface=\"eth0\""));
    for start in
        ["container_fs_limit_bytes{", "container_fs_usage_bytes{", "machine_cpu_sockets ", "machine_swap_bytes "]
    {
        has(&used, start);
    }
    has(&used, "container_scrape_error 0");
}

pub async fn b128_the_resource_page_has_swap(node: &mut Node) {
    let port = writer(node).await;
    let used = page(port, "/metrics/resource");
    for start in [
        "node_swap_usage_bytes ",
        "pod_swap_usage_bytes{namespace=\"default\",pod=\"web-node1\"} ",
        "container_swap_usage_bytes{container=\"main\",namespace=\"default\",pod=\"web-node1\"} ",
        "pod_memory_working_set_bytes{namespace=\"default\",pod=\"web-node1\"} ",
        "resource_scrape_error 0",
    ] {
        has(&used, start);
    }
}
