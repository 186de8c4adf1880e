use serde_json::json;

use super::*;

fn base() -> Value {
    json!({"spec": {
        "hostNetwork": true,
        "containers": [{
            "name": "a", "image": "x", "command": ["a", "--one"],
            "env": [{"name": "E", "value": "1"}],
            "ports": [{"containerPort": 1, "name": "p"}],
            "volumeMounts": [{"mountPath": "/m", "name": "v", "readOnly": true}],
        }],
        "volumes": [{"name": "v", "hostPath": {"path": "/v"}}, {"name": "w", "emptyDir": {}}],
        "tolerations": [{"key": "k"}],
        "securityContext": {"runAsGroup": 1},
    }})
}

fn merged(patch: Value) -> Value {
    let mut value = base();
    merge(&mut value, &patch, POD_LISTS).unwrap();
    value["spec"].take()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn named_things_merge_by_their_key_and_plain_lists_are_replaced() {
    let spec = merged(json!({"spec": {
        "containers": [{
            "name": "a", "command": ["a", "--two"],
            "env": [{"name": "E", "value": "2"}],
            "ports": [{"containerPort": 1, "hostPort": 9}],
            "volumeMounts": [{"mountPath": "/m", "readOnly": false}],
        }],
        "tolerations": [{"operator": "Exists"}],
    }}));
    let container = &spec["containers"][0];
    assert_eq!(container["image"], "x");
    assert_eq!(container["command"], json!(["a", "--two"]));
    assert_eq!(container["env"], json!([{"name": "E", "value": "2"}]));
    assert_eq!(container["ports"], json!([{"containerPort": 1, "name": "p", "hostPort": 9}]));
    assert_eq!(container["volumeMounts"], json!([{"mountPath": "/m", "name": "v", "readOnly": false}]));
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
}

#[test]
fn what_a_patch_adds_comes_before_what_only_the_pod_has() {
    let spec = merged(json!({"spec": {
        "containers": [{"name": "sidecar"}],
        "volumes": [{"name": "n"}, {"name": "w"}],
    }}));
    assert_eq!(names(&spec["containers"]), ["sidecar", "a"]);
    assert_eq!(names(&spec["volumes"]), ["n", "v", "w"]);
}

#[test]
fn null_removes_a_field_and_patch_delete_an_item() {
    let spec = merged(json!({"spec": {
        "hostNetwork": null,
        "containers": [{"name": "a", "image": null, "env": [{"name": "E", "$patch": "delete"}]}],
        "volumes": [{"name": "v", "$patch": "delete"}, {"name": "none", "$patch": "delete"}],
    }}));
    assert_eq!(spec.get("hostNetwork"), None);
    assert_eq!(spec["containers"][0].get("image"), None);
    assert_eq!(spec["containers"][0]["env"], json!([]));
    assert_eq!(names(&spec["volumes"]), ["w"]);
}

#[test]
fn patch_replace_takes_the_place_of_a_whole_list_or_object() {
    let spec = merged(json!({"spec": {
        "volumes": [{"$patch": "replace"}, {"name": "n", "emptyDir": {}}],
        "securityContext": {"$patch": "replace", "runAsUser": 7},
    }}));
    assert_eq!(spec["volumes"], json!([{"name": "n", "emptyDir": {}}]));
    assert_eq!(spec["securityContext"], json!({"runAsUser": 7}));
}

#[test]
fn retained_keys_drop_the_other_source_of_a_volume() {
    let spec = merged(json!({"spec": {"volumes": [
        {"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}},
    ]}}));
    assert_eq!(spec["volumes"][0], json!({"name": "v", "emptyDir": {}}));
}

#[test]
fn init_containers_merge_as_containers_do() {
    let patch = json!({"spec": {"initContainers": [{"name": "i", "env": [{"name": "A", "value": "1"}]}]}});
    let mut value = base();
    merge(&mut value, &patch, POD_LISTS).unwrap();
    let more = json!({"spec": {"initContainers": [{"name": "i", "env": [{"name": "B", "value": "2"}]}]}});
    merge(&mut value, &more, POD_LISTS).unwrap();
    assert_eq!(names(&value["spec"]["initContainers"][0]["env"]), ["B", "A"]);
}

#[test]
fn impossible_patches_are_refused() {
    let error = |patch: Value| merge(&mut base(), &patch, POD_LISTS).unwrap_err();
    assert_eq!(error(json!([])), StrategicError::NotAnObject);
    let no_key = error(json!({"spec": {"containers": [{"image": "y"}]}}));
    assert_eq!(no_key, StrategicError::NoKey { path: "spec.containers".into(), key: "name" });
    assert!(matches!(error(json!({"spec": {"$patch": "drop"}})), StrategicError::Directive { .. }));
    assert!(matches!(error(json!({"spec": {"$other": []}})), StrategicError::Unsupported { .. }));
    assert!(matches!(error(json!({"spec": {"$setElementOrder/volumes": 1}})), StrategicError::NoList { .. }));
    let order = json!({"spec": {"$setElementOrder/volumes": [{"name": "w"}], "volumes": [{"name": "v"}]}});
    assert_eq!(error(order), StrategicError::Order { path: "spec.volumes".into() });
    let retain = json!({"spec": {"$retainKeys": ["volumes"], "hostPID": true}});
    assert_eq!(error(retain), StrategicError::NotRetained { path: "spec".into(), field: "hostPID".into() });
}

#[test]
fn without_a_table_every_list_is_replaced() {
    let mut value = json!({"spec": {"containers": [{"name": "a"}]}});
    merge(&mut value, &json!({"spec": {"containers": [{"name": "b"}]}}), NO_LISTS).unwrap();
    assert_eq!(value, json!({"spec": {"containers": [{"name": "b"}]}}));
}

#[test]
fn of_several_items_with_one_key_the_first_is_patched_and_the_others_stay() {
    let ports = |patch: Value| {
        let mut value = json!({"spec": {"containers": [{"name": "a", "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
            {"containerPort": 9153, "name": "metrics"},
        ]}]}});
        merge(&mut value, &json!({"spec": {"containers": [{"name": "a", "ports": patch}]}}), POD_LISTS).unwrap();
        value["spec"]["containers"][0]["ports"].take()
    };
    let tcp = json!({"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"});
    let udp = json!({"containerPort": 53, "name": "dns", "protocol": "UDP"});
    let metrics = json!({"containerPort": 9153, "name": "metrics"});
    let patched = json!({"containerPort": 53, "name": "dns", "protocol": "UDP", "hostPort": 53});
    assert_eq!(ports(json!([{"containerPort": 53, "hostPort": 53}])), json!([patched, tcp, metrics]));
    assert_eq!(ports(json!([{"containerPort": 53.0, "hostPort": 53}]))[0]["name"], "dns", "one kind of number");
    assert_eq!(ports(json!([{"containerPort": 8080}])), json!([{"containerPort": 8080}, udp, tcp, metrics]));
    assert_eq!(ports(json!([{"containerPort": 53, "$patch": "delete"}])), json!([metrics]), "delete takes all of them");
    let twice = ports(json!([{"containerPort": 53, "hostPort": 1}, {"containerPort": 53, "protocol": "TCP"}]));
    assert_eq!(twice[0], json!({"containerPort": 53, "name": "dns", "protocol": "TCP", "hostPort": 1}));
    assert_eq!(twice[1], tcp);
}

#[test]
fn finalizers_merge_and_are_taken_out_by_name() {
    let finalizers = |metadata: Value| {
        let mut value = json!({"metadata": {"finalizers": ["b", "c", "a"]}});
        merge(&mut value, &json!({ "metadata": metadata }), POD_LISTS).unwrap();
        value["metadata"]["finalizers"].take()
    };
    assert_eq!(finalizers(json!({"finalizers": ["new", "a"]})), json!(["new", "b", "c", "a"]));
    assert_eq!(finalizers(json!({"$deleteFromPrimitiveList/finalizers": ["c", "x"]})), json!(["b", "a"]));
    let ordered = json!({"$setElementOrder/finalizers": ["a", "new", "b"], "finalizers": ["new"]});
    assert_eq!(
        finalizers(ordered),
        json!(["c", "a", "new", "b"]),
        "what is not named stays before what stood behind it"
    );
    assert_eq!(finalizers(json!({"finalizers": null})), Value::Null);
}

#[test]
fn the_order_of_a_list_can_be_given_with_or_without_new_items() {
    let spec = merged(json!({"spec": {"$setElementOrder/volumes": [{"name": "w"}, {"name": "v"}]}}));
    assert_eq!(names(&spec["volumes"]), ["w", "v"]);
    let spec = merged(json!({"spec": {
        "$setElementOrder/volumes": [{"name": "w"}, {"name": "n"}],
        "volumes": [{"name": "n", "emptyDir": {}}, {"name": "none", "$patch": "delete"}],
    }}));
    assert_eq!(names(&spec["volumes"]), ["v", "w", "n"]);
    let spec = merged(json!({"spec": {
        "$setElementOrder/initContainers": [{"name": "j"}, {"name": "i"}],
        "initContainers": [{"name": "j"}, {"name": "i"}],
    }}));
    assert_eq!(names(&spec["initContainers"]), ["j", "i"]);
}

#[test]
fn what_is_new_comes_without_directives_and_nulls() {
    let spec = merged(json!({"spec": {
        "affinity": {"nodeAffinity": null, "podAffinity": {"x": [{"y": null, "z": 1}]}},
        "overhead": {"$patch": "replace", "cpu": "1"},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": null}, {"ip": "10.0.0.2", "$patch": "delete"}],
        "dnsConfig": {"$retainKeys": ["searches"], "searches": ["a"]},
    }}));
    assert_eq!(spec["affinity"], json!({"podAffinity": {"x": [{"z": 1}]}}));
    assert_eq!(spec.get("overhead"), None, "there is nothing to replace");
    assert_eq!(spec["hostAliases"], json!([{"ip": "10.0.0.1"}]));
    assert_eq!(spec["dnsConfig"], json!({"searches": ["a"]}));
    // A new item of a list that is there comes whole, as the API server takes it.
    let spec = merged(json!({"spec": {"containers": [
        {"name": "b", "image": null, "resources": {"$patch": "replace", "limits": {"cpu": "1"}}},
    ]}}));
    assert_eq!(spec["containers"][0], json!({"name": "b", "resources": {"limits": {"cpu": "1"}}}));
    let spec = merged(json!({"spec": {"tolerations": [{"key": null, "operator": "Exists", "$patch": "delete"}]}}));
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
}

#[test]
fn a_patch_of_null_changes_nothing() {
    let mut value = base();
    merge(&mut value, &Value::Null, POD_LISTS).unwrap();
    assert_eq!(value, base());
}
