mod survival;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    name: String,
    count: i32,
    on: bool,
    words: Vec<String>,
    inner: Vec<Inner>,
    level: Option<Level>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Level {
    High,
    Low,
}

#[test]
fn scalars_are_typed_as_go_types_them() {
    let cases = [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("y", json!(true)),
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0x1F", json!(31)),
        ("1_000", json!(1000)),
        ("1e3", json!(1000)),
        ("1.20", json!(1.2)),
        ("12:30", json!("12:30")),
        ("2001-01-01", json!("2001-01-01")),
        ("1.36.2", json!("1.36.2")),
        ("~", Value::Null),
        ("'yes'", json!("yes")),
    ];
    for (text, expected) in cases {
        assert_eq!(to_value(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn documents_are_read_as_kubernetes_reads_them_rule_by_rule() {
    let cases = [
        // Booleans of YAML 1.1, in lower case, capitalised and in capitals, and in no other.
        ("[yes, Yes, YES, on, On, ON, y, Y, true, True, TRUE]", Value::from(vec![true; 11])),
        ("[no, No, NO, off, Off, OFF, n, N, false, False, FALSE]", Value::from(vec![false; 11])),
        ("[yEs, oN, 'yes', \"off\", tRue]", json!(["yEs", "oN", "yes", "off", "tRue"])),
        // Numbers: octal, hexadecimal, binary, with underscores, with exponents; quoted ones are texts.
        ("[010, 0o10, 0x10, 0b10, 1_0, 1e1, +1, -1, 1.50]", json!([8, 8, 16, 2, 10, 10, 1, -1, 1.5])),
        ("['010', '1.0', 1.2.3, 08x, 1h, 0x]", json!(["010", "1.0", "1.2.3", "08x", "1h", "0x"])),
        ("[18446744073709551615, -9223372036854775808]", json!([u64::MAX, i64::MIN])),
        // Durations, quantities and times are texts.
        (
            "[24h0m0s, 100m, 1Gi, 12:30:45, 2030-01-02T15:04:05Z]",
            json!(["24h0m0s", "100m", "1Gi", "12:30:45", "2030-01-02T15:04:05Z"]),
        ),
        ("[~, null, Null, NULL, '~', '']", json!([null, null, null, null, "~", ""])),
        // Anchors, aliases and merge keys; what is written itself wins.
        (
            "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}",
            json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}),
        ),
        (
            "a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b]}",
            json!({"a": {"x": 1}, "b": {"x": 2, "z": 3}, "c": {"x": 1, "z": 3}}),
        ),
        // Texts over several lines, comments, tabs behind values and in JSON.
        ("a: |\n  b\n  c\nd: >-\n  e\n  f # g\n", json!({"a": "b\nc\n", "d": "e f # g"})),
        ("a: b\t# c\nd:\te", json!({"a": "b", "d": "e"})),
        ("{\t\"a\":\t[1,\t2] }", json!({"a": [1, 2]})),
        ("%YAML 1.2\n---\na: 1\n...\n", json!({"a": 1})),
        ("\u{feff}a: 1", json!({"a": 1})),
        ("a: 1\r\nb:\r\n- 2\r\n", json!({"a": 1, "b": [2]})),
        // A key is text whatever it looks like.
        ("{1: a, true: b, 1.5: c}", json!({"1": "a", "true": "b", "1.5": "c"})),
    ];
    for (text, expected) in cases {
        assert_eq!(to_value(text).unwrap_or_else(|error| panic!("{text}: {error}")), expected, "{text}");
    }
    for text in
        ["a:\n\tb: 1", "a: 1\na: 1", "{\"a\": 1, \"a\": 2}", "a: .inf", "a: .nan", "a: *b", "a: [", "a: 'b", "<<: 1"]
    {
        assert!(to_value(text).is_err(), "{text}");
    }
}

#[test]
fn output_has_sorted_keys_and_list_items_level_with_their_key() {
    let text = to_string(&json!({"b": [{"y": "no", "x": [1]}, "plain"], "a": {"e": {}, "l": []}})).unwrap();
    assert_eq!(text, "a:\n  e: {}\n  l: []\nb:\n- x:\n  - 1\n  \"y\": \"no\"\n- plain\n");
}

#[test]
fn long_lines_stay_whole() {
    let text = to_string(&json!({ "command": "word ".repeat(60) })).unwrap();
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_stream_is_cut_at_separators_and_knows_its_lines() {
    let stream = "\u{feff}# licence\n---\na: 1\n---\n---\n# nothing\n--- # comment\nb: 2\n--- {c: 3}\n...\n---\n";
    let found = documents(stream).unwrap();
    let lines = found.iter().map(|document| document.line).collect::<Vec<_>>();
    assert_eq!(lines, [2, 7, 9]);
    let values = found.iter().map(|document| Node::parse(document).unwrap().to_value()).collect::<Vec<_>>();
    assert_eq!(values, [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})]);
    let place = Node::parse(&found[2]).unwrap().get("c").unwrap().at;
    assert_eq!(place, Position { line: 9, column: 9 });
    assert_eq!(documents("a: |\n  ---\n--x\r\n---\r\nb: 1").unwrap().len(), 2);
    assert_eq!(documents("").unwrap(), []);
}

#[test]
fn json_is_yaml_too() {
    assert_eq!(to_value("{\"a\":\n\t[1, \"no\", null]}").unwrap(), json!({"a": [1, "no", null]}));
}

#[test]
fn faults_of_syntax_name_line_and_column() {
    let cases = [
        ("a: 1\na: 2\n", "line 2, column 1: \"a\" is written twice in the same map"),
        ("a:\n  b: 1\n  b: 2\n", "line 3, column 3: \"b\" is written twice in the same map"),
        ("a: [1\n", "line 1, column 4: unclosed bracket '['"),
        ("a: 1\n b: 2\n", "line 2, column 3: mapping values are not allowed in this context"),
        ("a: 1\n---\nb: 1\n", "line 2, column 1: a second document begins here; only one is allowed"),
        ("a: *x", "line 1, column 4: alias references unknown anchor"),
    ];
    for (text, expected) in cases {
        assert_eq!(to_value(text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_fault_of_decoding_names_the_field_and_says_what_to_write() {
    let cases = [
        ("name: 1.20", "line 1, column 7: name: expected a string, found the number 1.20; put it in quotes"),
        ("name: on", "line 1, column 7: name: expected a string, found the boolean on; put it in quotes"),
        ("count: many", "line 1, column 8: count: expected a whole number, found the text \"many\""),
        ("count: 3000000000", "line 1, column 8: count: expected a whole number, found the number 3000000000"),
        ("on: 3", "line 1, column 5: on: expected true or false, found the number 3"),
        ("words: a", "line 1, column 8: words: expected a list, found the text \"a\""),
        ("inner: [[a, b]]", "line 1, column 9: inner[0]: expected a map of fields, found a list"),
        ("inner:\n- value: x", "line 2, column 3: inner[0]: the field \"name\" is missing"),
        ("level: Mid", "line 1, column 8: level: \"Mid\" is none of High, Low"),
        ("- a", "line 1, column 1: expected a map of fields, found a list"),
        ("count: 1\nnmae: x", "line 2, column 1: nmae: unknown field; did you mean name?"),
        ("size: 1", "line 1, column 1: size: unknown field; known are name, count, on, words, inner, level"),
    ];
    for (text, expected) in cases {
        assert_eq!(from_str::<Sample>(text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn null_fields_of_a_struct_are_absent_ones() {
    let sample: Sample = from_str("name: null\ncount:\nwords: ~\ninner: null\nlevel: Low\n").unwrap();
    assert_eq!(sample, Sample { level: Some(Level::Low), ..Sample::default() });
}

#[test]
fn null_has_the_zero_value_of_its_type_in_lists_and_maps() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Lists {
        words: Vec<String>,
        counts: Vec<i64>,
        inner: Vec<Sample>,
        named: BTreeMap<String, String>,
        flags: BTreeMap<String, bool>,
        lists: BTreeMap<String, Vec<String>>,
        maybe: Vec<Option<String>>,
    }
    let text =
        "words: [~, a]\ncounts: [~, 2]\ninner: [~]\nnamed: {a: , b: c}\nflags: {a: ~}\nlists: {a: }\nmaybe: [~]\n";
    let lists: Lists = from_str(text).unwrap();
    assert_eq!((lists.words, lists.counts), (vec![String::new(), "a".into()], vec![0, 2]));
    assert_eq!((lists.inner, lists.maybe), (vec![Sample::default()], vec![None]));
    assert_eq!((lists.named["a"].as_str(), lists.flags["a"], lists.lists["a"].len()), ("", false, 0));
    assert!(from_str::<Sample>("").is_err(), "of a document there must be one");
    assert!(from_str::<Sample>("level: [~]").is_err());
}

/// How a document is read leniently, and the lines of keys that count and of those that do not.
fn lenient(text: &str) -> (Value, Vec<(String, usize, usize)>) {
    let document = Document { line: 1, text: text.to_owned() };
    let (node, repeated) = Node::parse_lenient(&document).unwrap_or_else(|error| panic!("{text}: {error}"));
    let places = repeated.iter().map(|one| (path_to_string(&one.path), one.at.line, one.before.line));
    (node.to_value(), places.collect())
}

#[test]
fn leniently_the_last_of_equal_keys_counts_and_the_others_are_named() {
    let (value, repeated) = lenient("a: 1\nb:\n- c: {d: 1}\n  c: 2\na: [x]\na: 3\n");
    assert_eq!(value, json!({"a": 3, "b": [{"c": 2}]}));
    assert_eq!(repeated, [("b[0].c".into(), 4, 3), ("a".into(), 5, 1), ("a".into(), 6, 5)]);
    assert_eq!(lenient("1: a\n0x1: b\n'1': c"), (json!({"1": "c"}), vec![("1".into(), 2, 1), ("1".into(), 3, 2)]));
    // What merge keys bring is nothing that was written twice.
    let merged = "a: &a {x: 1, z: 2}\nb: {x: 0, <<: *a, z: 3}";
    assert_eq!(lenient(merged), (json!({"a": {"x": 1, "z": 2}, "b": {"x": 1, "z": 3}}), vec![]));
    assert_eq!(to_value(merged).unwrap()["b"], json!({"x": 0, "z": 3}), "strictly, what is written there counts");
    assert_eq!(lenient("yes: 1\n0x1F: 2\n'no': 3").0, json!({"true": 1, "31": 2, "no": 3}));
    assert_eq!(lenient("a: 1\n...\nb: [").0, json!({"a": 1}));
    assert_eq!(lenient("").0, Value::Null);
}

#[test]
fn tags_and_anchors_are_read_as_go_reads_them() {
    let cases = [
        (
            "[!!str 1, !!int '0x10', !!float 3, !!bool 'yes', !!null '', !own 5, ! 5]",
            json!(["1", 16, 3, true, null, "5", "5"]),
        ),
        ("[!!binary aGk=, !!binary 'a Gk =', !!timestamp 2001-01-01]", json!(["hi", "hi", "2001-01-01"])),
        ("{&k a: &v x, b: *v, *k : c}", json!({"a": "c", "b": "x"})),
        ("{? a : b, c, ? d}", json!({"a": "b", "c": null, "d": null})),
        ("a: &x 1\nb: &x 2\nc: *x", json!({"a": 1, "b": 2, "c": 2})),
        ("a: |\n  b", json!({"a": "b"})),
        ("a: >\n  b\n  c\n", json!({"a": "b c\n"})),
    ];
    for (text, expected) in cases {
        assert_eq!(lenient(text).0, expected, "{text}");
    }
    for text in [
        "!!int 1.5",
        "!!bool x",
        "!!binary '*'",
        "{~: 1}",
        "{[a]: 1}",
        "{{a: 1}: 1}",
        "? {a: 1}\n: 1",
        "&a [*a]",
        "&a {b: *a}",
        "*a",
        "{<<: [1]}",
        "{<<: ~}",
        "a: .inf",
        "a: b: c",
        "a:\n\tb: 1",
        "a: 'b",
        "@a",
        "`a",
        "%a",
    ] {
        assert!(Node::parse_lenient(&Document { line: 1, text: text.to_owned() }).is_err(), "{text}");
    }
}

#[test]
fn aliases_within_aliases_nest_no_deeper_than_lists() {
    let chain = |levels: usize| {
        let rest = (1..levels).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1));
        std::iter::once("a0: &a0 [x]\n".to_owned()).chain(rest).collect::<String>()
    };
    assert!(to_value(&chain(20)).is_ok());
    let error = to_value(&chain(40)).unwrap_err();
    assert_eq!(error.problem, "nested deeper than 32 levels");
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a, ".repeat(1000));
    assert!(to_value(&long).unwrap_err().problem.contains("too many values"));
}

#[test]
fn all_faults_come_out_at_once_and_the_rest_is_decoded() {
    let text = "name: 1\nextra: 2\nwords: [a, 3, b, {}]\ninner:\n- {nam: x}\n- {name: 5}\n- {name: good}\non: true\n";
    let mut node = Node::parse(&documents(text).unwrap()[0]).unwrap();
    let (sample, faults) = node.decode_all::<Sample>();
    let mut places =
        faults.iter().map(|fault| (fault.at.unwrap().line, path_to_string(&fault.path))).collect::<Vec<_>>();
    places.sort();
    let expected =
        [(1, "name"), (2, "extra"), (3, "words[1]"), (3, "words[3]"), (5, "inner[0].nam"), (6, "inner[1].name")];
    assert_eq!(places, expected.map(|(line, path)| (line, path.to_owned())));
    assert_eq!((sample.on, sample.words.join(",")), (true, "a,b".to_owned()));
    assert_eq!(sample.inner, [Inner { name: "good".into(), value: String::new() }]);
    let found = node.locate(&path_from_str("inner[0].name")).unwrap();
    assert_eq!((found.at, path_to_string(&found.path).as_str()), (Position { line: 7, column: 10 }, "inner[2].name"));
    assert!(!found.faulty && node.locate(&path_from_str("name")).unwrap().faulty);
    assert_eq!(node.locate(&path_from_str("inner[1]")), None);
}

#[test]
fn kubernetes_types_decode_as_go_decodes_them() {
    use k8s_openapi::api::core::v1::Pod;
    let text = "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - name: a\n    args: null\n\
                \x20   resources: {limits: {cpu: 1.50}}\n    livenessProbe: {httpGet: {port: 80}}\n  volumes:\n\
                \x20 - name: v\n    configMap: {defaultMode: 0644}\n";
    let pod: Pod = from_str(text).unwrap();
    let spec = pod.spec.unwrap();
    assert_eq!(spec.containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap()["cpu"].0, "1.5");
    assert_eq!(spec.volumes.unwrap()[0].config_map.as_ref().unwrap().default_mode, Some(420));
}

#[test]
fn bombs_are_refused() {
    assert!(to_value(&"[".repeat(5000)).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let items = vec![format!("*a{}", n - 1); 9].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{items}]\n"));
    }
    assert!(to_value(&bomb).is_err());
}
