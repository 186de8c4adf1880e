use super::*;

/// What reads a file, and what it says of it.
type Loader = fn(&str) -> Result<(), ConfigError>;

/// A case: its loader, its file, the problems that it must have.
type Case = (Loader, String, Vec<String>);

fn for_init(file: &str) -> Result<(), ConfigError> {
    load(&file_of(file)).map(drop)
}

fn for_join(file: &str) -> Result<(), ConfigError> {
    load_join(&file_of(file)).map(drop)
}

fn for_reset(file: &str) -> Result<(), ConfigError> {
    load_reset(&file_of(file)).map(drop)
}

fn for_upgrade(file: &str) -> Result<(), ConfigError> {
    load_upgrade(&file_of(file)).map(drop)
}

/// The tags of cases: the loader, and the kind of the document that the text is the body of.
const TAGS: &[(&str, Loader, Option<&str>)] = &[
    ("[cluster]", for_init, Some("ClusterConfiguration")),
    ("[init]", for_init, Some("InitConfiguration")),
    ("[file]", for_init, None),
    ("[join]", for_join, Some("JoinConfiguration")),
    ("[join file]", for_join, None),
    ("[reset]", for_reset, Some("ResetConfiguration")),
    ("[reset file]", for_reset, None),
    ("[upgrade]", for_upgrade, Some("UpgradeConfiguration")),
    ("[upgrade file]", for_upgrade, None),
];

/// The cases of a file.
fn cases(text: &str) -> Vec<Case> {
    let blocks = text.split("\n\n").skip(1);
    let case = |block: &str| {
        let (tag, rest) = block.trim().split_once('\n').unwrap();
        let (expected, body): (Vec<&str>, Vec<&str>) = rest.lines().partition(|line| line.starts_with("=> "));
        let body = body.join("\n");
        let (_, loader, kind) = TAGS.iter().find(|row| row.0 == tag).unwrap_or_else(|| panic!("no tag: {tag}"));
        let file = kind.map_or(body.clone(), |kind| document(kind, &body));
        (*loader, file, expected.iter().map(|line| line[3..].to_owned()).collect())
    };
    blocks.map(case).collect()
}

#[test]
fn every_bad_configuration_is_refused_in_these_words() {
    let mut wrong = Vec::new();
    for (text, least) in [(include_str!("bad.txt"), 100), (include_str!("bad_others.txt"), 40)] {
        let cases = cases(text);
        assert!(cases.len() > least, "{}", cases.len());
        for (loader, file, expected) in cases {
            assert!(!expected.is_empty(), "{file}");
            let problems = match loader(&file) {
                Ok(()) => Vec::new(),
                Err(error) => error.problems.iter().map(ToString::to_string).collect(),
            };
            if problems != expected {
                wrong.push(format!("{file}\n=> {}", problems.join("\n=> ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn problems_of_all_documents_come_at_once_in_the_order_of_the_file() {
    let file = "\
# a comment
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  nam: cp1
  taints:
  - {key: 5, effect: NoSchedule}
  - {key: a, effect: Never}
localAPIEndpoint: {bindPort: 0}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: x, serviceSubnet: [10.96.0.0/12]}
---
apiVersion: v1
kind: Secret
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
---
a: [
";
    let places =
        bad(file).iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    let expected = [
        "c.yaml:5:3 nodeRegistration.nam",
        "c.yaml:7:11 nodeRegistration.taints[0].key",
        // The second taint is the first that could be read; it is still called the second.
        "c.yaml:8:22 nodeRegistration.taints[1].effect",
        "c.yaml:9:30 localAPIEndpoint.bindPort",
        "c.yaml:13:25 networking.podSubnet",
        "c.yaml:13:43 networking.serviceSubnet",
        "c.yaml:15:13 apiVersion",
        "c.yaml:19:7 kind",
        "c.yaml:21:4 unclosed bracket '['",
    ];
    assert_eq!(places, expected);
}

#[test]
fn one_problem_is_one_line_and_several_have_a_heading() {
    let one = load(&input(&cluster("clusterNme: x"))).unwrap_err().to_string();
    assert_eq!(one, "c.yaml:3:1: clusterNme: unknown field; did you mean clusterName?");
    let two = load(&input(&cluster("a: 1\nclusterNme: x"))).unwrap_err().to_string();
    assert!(
        two.starts_with("the configuration has 2 problems:\n  c.yaml:3:1: a: unknown field; known are etcd, "),
        "{two}"
    );
    assert!(two.ends_with("\n  c.yaml:4:1: clusterNme: unknown field; did you mean clusterName?"), "{two}");
}

#[test]
fn no_message_shows_a_secret() {
    let secrets =
        ["0123456789abcdeF", "777777777777777", "[777777777777777]", "{777777777777777: a}", "true777777777777777"];
    for secret in secrets {
        for body in [format!("certificateKey: {secret}"), format!("bootstrapTokens: [{{token: {secret}}}]")] {
            let text = bad(&init(&body)).join("\n");
            assert!(!text.contains("777") && !text.contains("0123456789"), "{text}");
        }
    }
}

#[test]
fn a_machine_without_an_address_is_told_which_flag_to_give() {
    let mut input = input(&cluster(""));
    input.host.address = None;
    let message = "localAPIEndpoint.advertiseAddress: this machine has no default route to take the address from; give \
                   --apiserver-advertise-address, or set localAPIEndpoint.advertiseAddress in the file";
    assert_eq!(load(&input).unwrap_err().to_string(), message);
}

#[test]
fn a_host_name_that_is_no_node_name_is_told_how_to_mend_it() {
    let mut input = input(&cluster(""));
    input.host.hostname = "my_host".into();
    let message = "nodeRegistration.name: the host name cannot be the node's: \"my_host\" is not a DNS name; write \
                   \"my-host\", with --node-name or nodeRegistration.name";
    assert_eq!(load(&input).unwrap_err().to_string(), message);
}

/// Where the one problem of `file` is, and in which field.
fn place_of_the_problem(file: &str) -> (usize, String) {
    let problems = load(&input(file)).expect_err(file).problems;
    assert_eq!(problems.len(), 1, "{problems:?}\n{file}");
    (problems[0].place.as_ref().unwrap().line, problems[0].field.clone())
}

/// Each line `key: value` of the file, with the key.
fn lines_with_keys(file: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let lines =
        file.lines().enumerate().filter_map(|(index, line)| Some((index, line, line.split_once(':')?.0.trim())));
    lines.filter(|(_, _, key)| !["apiVersion", "kind"].contains(key))
}

fn with_line(file: &str, index: usize, line: &str) -> String {
    let lines = file.lines().enumerate().map(|(at, old)| if at == index { line } else { old });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_misspelt_key_is_found_on_its_line_wherever_it_is() {
    let file = include_str!("everything.yaml");
    let mut count = 0;
    for (index, line, key) in lines_with_keys(file) {
        let wrong = with_line(file, index, &line.replacen(key, &format!("{key}Zz"), 1));
        let (at, field) = place_of_the_problem(&wrong);
        assert_eq!((at, field.ends_with(&format!("{key}Zz"))), (index + 1, true), "{line}");
        count += 1;
    }
    assert!(count > 40, "{count}");
}

#[test]
fn a_value_of_the_wrong_type_is_found_on_its_line_wherever_it_is() {
    let file = include_str!("everything.yaml");
    for (index, line, key) in lines_with_keys(file).filter(|(_, line, _)| !line.ends_with(':')) {
        let head = line.split_once(':').unwrap().0;
        let (at, field) = place_of_the_problem(&with_line(file, index, &format!("{head}: 1.5")));
        assert_eq!((at, field.rsplit('.').next().unwrap()), (index + 1, key), "{line}");
    }
}

proptest::proptest! {
    #[test]
    fn nothing_in_the_place_of_a_value_makes_it_panic(index in 0_usize..60, value in ".{0,30}") {
        let file = include_str!("everything.yaml");
        let index = index % file.lines().count();
        let head = file.lines().nth(index).unwrap().split(':').next().unwrap().to_owned();
        let _ = load(&input(&with_line(file, index, &format!("{head}: {value}"))));
    }
}
