use super::*;
use crate::config::spec::{Arg, EtcdSpec};
use crate::host::Paths;

#[test]
fn minor_versions_are_those_of_versions_and_of_tags() {
    for text in ["3.6", "3.6.8", "v3.6.8", "3.6.8-0", "3.6.8-0-mine"] {
        assert_eq!(Minor::of(text), Some(Minor { major: 3, minor: 6 }), "{text}");
    }
    for text in ["", "3", "v1", "latest", "a.b.c", "3.x.1"] {
        assert_eq!(Minor::of(text), None, "{text}");
    }
    assert_eq!(Minor::of("3.6.8").unwrap().target(), "3.6.0");
    assert!(Minor::of("3.10").unwrap() > Minor::of("3.9").unwrap());
}

#[test]
fn the_member_of_a_node_is_where_its_manifest_has_it_listen() {
    let mut spec = crate::testing::spec();
    let paths = Paths::new("/mnt");
    let member = Member::of(&spec, &paths);
    assert_eq!((member.host.as_str(), member.port), ("127.0.0.1", 2379));
    assert_eq!(member.key, std::path::Path::new("/mnt/etc/kubernetes/pki/etcd/healthcheck-client.key"));
    let EtcdSpec::Local(local) = &mut spec.etcd else { unreachable!() };
    let urls = "https://[::1]:12379,https://10.0.0.5:12379";
    local.component.extra_args.push(Arg { name: "listen-client-urls".into(), value: urls.into() });
    let member = Member::of(&spec, &paths);
    assert_eq!((member.host.as_str(), member.port), ("::1", 12379));
}

#[tokio::test]
async fn a_member_that_is_not_there_is_named_with_its_address_and_the_cause() {
    let member = Member { port: 1, ..Member::of(&crate::testing::spec(), &Paths::new("/nonexistent-kubeboot")) };
    let error = member.status().await.unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(text.contains("127.0.0.1:1 cannot be reached") && text.contains("cannot read /nonexistent"), "{text}");
}
