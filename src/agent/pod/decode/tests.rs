//! Odd spellings of a Pod, against what Go makes of them.
//!
//! `go_reads.tsv` holds one spelling a line: where in a Pod it stands, the line itself, and what a Go program with the
//! kubelet's own steps (`ToJSON`, `UniversalDecoder`, defaults, `ValidatePodCreate`) gave for it: `refused`, or the values
//! at some JSON pointers.

use proptest::prelude::*;
use proptest::sample;
use serde_json::{Value, json};

use super::super::tests::read_at;
use super::super::{Origin, Place, PodError, StaticPod};
use crate::agent::pod::resources;

const TABLE: &str = include_str!("go_reads.tsv");
/// The parts of a Pod that lines are put into, with what is in them already.
const PLACES: &[(&str, &str, &[&str])] = &[
    ("metadata", "", &["name: p"]),
    ("spec", "", &[]),
    ("container", "  ", &["name: c", "image: bb:1"]),
    ("volume", "  ", &["name: v"]),
];

/// One spelling.
#[derive(Debug, Clone)]
struct Row {
    place: &'static str,
    line: &'static str,
    /// JSON pointers with their values; None where Go refuses the pod.
    values: Option<Vec<(&'static str, Value)>>,
    /// It changes what other lines mean.
    alone: bool,
}

impl Row {
    fn field(&self) -> &'static str {
        self.line.split(':').next().unwrap()
    }

    /// What no other row of a pod may set as well: a volume has one source.
    fn key(&self) -> (&'static str, &'static str) {
        (self.place, if self.place == "volume" { "" } else { self.field() })
    }
}

fn rows() -> Vec<Row> {
    let row = |text: &'static str| {
        let mut fields = text.split('\t');
        let place = fields.next().unwrap();
        let (place, alone) = place.strip_prefix('!').map_or((place, false), |place| (place, true));
        let line = fields.next().unwrap();
        let mut refused = false;
        let mut values = Vec::new();
        for field in fields {
            match field.split_once('=') {
                Some((pointer, value)) => values.push((pointer, serde_json::from_str(value).unwrap())),
                None => refused = field == "refused",
            }
        }
        Row { place, line, values: (!refused).then_some(values), alone }
    };
    TABLE.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

/// A Pod with these lines, each behind what `before` puts there.
fn manifest(rows: &[Row], before: impl Fn(&Row) -> String) -> String {
    let part = |name: &str| {
        let (_, margin, fixed) = PLACES.iter().find(|(place, ..)| *place == name).unwrap();
        let own = rows.iter().filter(|row| row.place == name);
        // A line of the table replaces the same one that is there already.
        let fixed = fixed.iter().filter(|line| own.clone().all(|row| row.field() != line.split(':').next().unwrap()));
        let fixed = fixed.map(|line| (*line).to_owned());
        let lines: Vec<String> = fixed.chain(own.clone().map(|row| before(row) + row.line)).collect();
        lines.iter().map(|line| format!("  {margin}{line}\n")).collect::<String>()
    };
    let item = |name: &str| part(name).replacen("    ", "  - ", 1);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n{}spec:\n{}  containers:\n{}  volumes:\n{}",
        part("metadata"),
        part("spec"),
        item("container"),
        item("volume"),
    )
}

fn read(text: &str) -> Result<StaticPod, PodError> {
    read_at(text, "n", "/m/p.yaml")
}

/// Whether a value is Go's zero value, which it leaves out of its JSON.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Why `found` is not what Go has at `pointer`.
fn differs(found: &Value, pointer: &str, expected: &Value) -> Option<String> {
    let (quantity, pointer) = pointer.strip_prefix("q:").map_or((false, pointer), |pointer| (true, pointer));
    let found = found.pointer(pointer).unwrap_or(&Value::Null);
    let millis = |value: &Value| resources::millis(&serde_json::from_value(value.clone()).ok()?);
    let same = if quantity {
        // Absent and 0 are the same to Go.
        millis(found).or(found.is_null().then_some(0)) == millis(expected)
    } else {
        found == expected || (is_zero(found) && is_zero(expected))
    };
    (!same).then(|| format!("{pointer} is {found}, and {expected} to Go"))
}

/// Why a Pod with these lines is not read as Go reads it.
fn judge(text: &str, rows: &[Row]) -> Option<String> {
    let refused = rows.iter().any(|row| row.values.is_none());
    match read(text) {
        Err(error) if !refused => Some(format!("refused: {error}")),
        Ok(_) if refused => Some("not refused".to_owned()),
        Err(_) => None,
        Ok(pod) => {
            let found = serde_json::to_value(pod.to_pod()).unwrap();
            let values = rows.iter().filter_map(|row| row.values.as_ref()).flatten();
            let faults = values.filter_map(|(pointer, value)| differs(&found, pointer, value));
            Some(faults.collect::<Vec<_>>().join("; ")).filter(|faults| !faults.is_empty())
        }
    }
}

#[test]
fn every_spelling_of_the_table_is_read_as_go_reads_it() {
    let rows = rows();
    assert!(rows.len() > 400 && rows.iter().any(|row| row.values.is_none()), "{}", rows.len());
    let mut faults = Vec::new();
    for row in rows {
        let text = manifest(std::slice::from_ref(&row), |_| String::new());
        faults.extend(judge(&text, std::slice::from_ref(&row)).map(|fault| format!("{}: {fault}", row.line)));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Ways to write the same Pod.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Plain,
    Windows,
    Marked,
    Wide,
    Documents,
    Comments,
    Repeated,
    Merged,
    Json,
}

const LAYOUTS: &[Layout] = &[
    Layout::Plain,
    Layout::Windows,
    Layout::Marked,
    Layout::Wide,
    Layout::Documents,
    Layout::Comments,
    Layout::Repeated,
    Layout::Merged,
    Layout::Json,
];

/// The bytes of a Pod with these lines.
fn lay_out(rows: &[Row], layout: Layout) -> Vec<u8> {
    let plain = manifest(rows, |_| String::new());
    match layout {
        Layout::Plain => plain.into_bytes(),
        Layout::Windows => plain.replace('\n', "\r\n").into_bytes(),
        Layout::Marked => format!("\u{feff}{plain}").into_bytes(),
        Layout::Wide => [0xfeff].into_iter().chain(plain.encode_utf16()).flat_map(u16::to_le_bytes).collect(),
        Layout::Documents => format!("%YAML 1.1\n---\n{plain}...\nno: [yaml\n").into_bytes(),
        Layout::Comments => format!("# a\n\n{}# z", plain.replace('\n', "\t# tab\n\n")).into_bytes(),
        // What stands there first counts for nothing, whatever it is.
        Layout::Repeated => {
            let before = |row: &Row| {
                let margin = if matches!(row.place, "container" | "volume") { "    " } else { "  " };
                format!("{}: [{{}}, 1]\n{margin}", row.field())
            };
            manifest(rows, before).into_bytes()
        }
        Layout::Merged => merged(rows).into_bytes(),
        Layout::Json => match crate::yaml::to_value_lenient(&plain) {
            Ok(value) => value.to_string().into_bytes(),
            // It is refused before there is any JSON of it.
            Err(_) => plain.into_bytes(),
        },
    }
}

/// Every line of the table comes in through a merge key, below what it may replace.
fn merged(rows: &[Row]) -> String {
    let mut anchors = String::new();
    let mut text = manifest(&[], |_| String::new());
    for (index, row) in rows.iter().enumerate() {
        anchors += &format!("x{index}: &x{index}\n  {}\n", row.line);
        let (after, margin) = match row.place {
            "metadata" => ("  name: p\n", "  "),
            "spec" => ("spec:\n", "  "),
            "container" => ("    image: bb:1\n", "    "),
            _ => ("  - name: v\n", "    "),
        };
        text = text.replacen(after, &format!("{after}{margin}? <<\n{margin}: *x{index}\n"), 1);
    }
    format!("{anchors}{text}")
}

/// Rows that do not speak of the same field.
fn distinct(rows: Vec<Row>) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::new();
    for row in rows {
        if !row.alone && kept.iter().all(|other| other.key() != row.key()) {
            kept.push(row);
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_pods_in_odd_spellings_are_read_as_go_reads_them(
        good in sample::subsequence(good_rows(), 0..8),
        bad in proptest::option::weighted(0.2, sample::select(bad_rows())),
        layout in sample::select(LAYOUTS),
        from in any::<sample::Index>(),
    ) {
        let mut rows: Vec<Row> = bad.into_iter().chain(good).collect();
        rows = distinct(rows);
        let turn = from.index(rows.len().max(1));
        rows.rotate_left(turn);
        let bytes = lay_out(&rows, layout);
        let origin = Origin { node_name: "n", place: Place::Url("u"), seen: jiff::Timestamp::UNIX_EPOCH };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let pod = StaticPod::from_bytes(&bytes, origin);
        let refused = rows.iter().any(|row| row.values.is_none());
        prop_assert_eq!(pod.is_err(), refused, "{}\n{:?}", text, pod.err());
        if let Ok(pod) = pod {
            let found = serde_json::to_value(pod.to_pod()).unwrap();
            for (pointer, value) in rows.iter().filter_map(|row| row.values.as_ref()).flatten() {
                prop_assert_eq!(differs(&found, pointer, value), None, "{}", text);
            }
        }
    }
}

fn good_rows() -> Vec<Row> {
    rows().into_iter().filter(|row| row.values.is_some() && !row.alone).collect()
}

fn bad_rows() -> Vec<Row> {
    rows().into_iter().filter(|row| row.values.is_none() && !row.alone).collect()
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: 'bb:1'}]}\n";

fn args(text: &str) -> Value {
    json!(read(text).unwrap().spec.containers[0].args)
}

#[test]
fn of_a_key_that_stands_twice_the_last_one_counts_and_a_warning_names_it() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  hostNetwork: true\n  containers:\n  - name: c\n    \
                image: bb:1\n    resources: {}\n    resources:\n      requests: {cpu: 10m}\n  hostNetwork: false\n";
    let pod = read(text).unwrap();
    assert!(!pod.host_network());
    assert_eq!(json!(pod.spec.containers[0].resources), json!({"requests": {"cpu": "10m"}}));
    let expected = [
        "\"spec.containers[0].resources\" is written twice: line 10 counts, line 9 does not",
        "\"spec.hostNetwork\" is written twice: line 12 counts, line 5 does not",
    ];
    assert_eq!(pod.warnings, expected);
    // In JSON as well.
    let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b",
"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x:1", "image": "bb:1"}]}}"#;
    let pod = read(json).unwrap();
    assert_eq!((pod.key.name.as_str(), pod.spec.containers[0].image.as_deref()), ("a-n", Some("bb:1")));
    assert_eq!(pod.warnings[0], "\"metadata.name\" is written twice: line 2 counts, line 1 does not");
    // A key and one that is written otherwise and means the same.
    let pod = read(&POD.replace("name: a", "name: a, annotations: {1: x, '1': z}")).unwrap();
    assert_eq!(pod.metadata.annotations.unwrap()["1"], "z");
    let many: String = (0..30).map(|n| format!("x{n}: 1\nx{n}: 2\n")).collect();
    let pod = read(&format!("{POD}{many}")).unwrap();
    assert!(pod.warnings.iter().any(|warning| warning == "and 20 more fields are written twice"), "{:?}", pod.warnings);
}

#[test]
fn merge_keys_count_where_they_stand() {
    let with = |spec: &str| {
        let text = format!("x: &x {{hostNetwork: true, hostname: x}}\nz: &z {{hostname: z, subdomain: z}}\n{POD}");
        let pod = read(&text.replace("spec: {", &format!("spec: {{{spec}, "))).unwrap();
        (pod.host_network(), pod.spec.hostname.unwrap_or_default(), pod.spec.subdomain.unwrap_or_default())
    };
    let all = |a: bool, b: &str, c: &str| (a, b.to_owned(), c.to_owned());
    assert_eq!(with("<<: *x"), all(true, "x", ""));
    assert_eq!(with("<<: *x, hostname: own"), all(true, "own", ""), "below the merge key");
    assert_eq!(with("hostname: own, <<: *x"), all(true, "x", ""), "above it");
    assert_eq!(with("<<: [*x, *z]"), all(true, "x", "z"), "the first of a list");
    assert_eq!(with("<<: {hostname: z}"), all(false, "z", ""));
    assert_eq!(with("<<: *x, <<: *z"), all(true, "z", "z"), "one after the other");
    for wrong in ["<<: 1", "<<: ~", "<<: [1]", "<<: *none"] {
        assert!(read(&POD.replace("spec: {", &format!("spec: {{{wrong}, "))).is_err(), "{wrong}");
    }
    let quoted = read(&POD.replace("spec: {", "spec: {'<<': {hostname: z}, ")).unwrap();
    assert_eq!(quoted.spec.hostname, None);
    assert_eq!(quoted.warnings, ["spec.<< is no field of a Pod and has no effect"]);
}

#[test]
fn files_are_read_whatever_marks_and_ends_they_have() {
    let plain = read(POD).unwrap();
    let wide = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(POD.encode_utf16()).flat_map(unit).collect()
    };
    let origin = Origin { node_name: "n", place: Place::File("/m/p.yaml".as_ref()), seen: jiff::Timestamp::UNIX_EPOCH };
    let read_bytes = |bytes: &[u8]| StaticPod::from_bytes(bytes, origin);
    for bytes in [
        format!("\u{feff}{POD}").into_bytes(),
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
        POD.replace('\n', "\r\n").into_bytes(),
        POD.replace('\n', "\r").into_bytes(),
        format!("---\n{POD}").into_bytes(),
        format!("--- # x\n{POD}").into_bytes(),
        format!("%YAML 1.1\n---\n{POD}").into_bytes(),
        format!("{POD}...\n").into_bytes(),
        format!("{POD}...\nno: [yaml").into_bytes(),
        format!(
            "\u{feff}{}",
            "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: 'bb:1'}]}}"
        )
        .into_bytes(),
    ] {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let pod = read_bytes(&bytes).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((pod.uid.as_str(), pod.warnings.len()), (plain.uid.as_str(), 0), "{text}");
    }
    let odd: Vec<u8> = wide(u16::to_le_bytes).into_iter().chain([0x41]).collect();
    assert!(matches!(read_bytes(&odd), Err(PodError::NotText)));
    assert!(matches!(read_bytes(&[0xff, 0xfe, 0x00, 0xd8]), Err(PodError::NotText)));
    let broken = read(&format!("{POD}---\nno: [yaml")).unwrap();
    assert_eq!(broken.warnings, ["only the first document is used"]);
}

#[test]
fn a_block_without_a_line_end_behind_it_has_none() {
    let with = |end: &str| {
        let text = format!(
            "{}  - |\n    echo{end}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    \
             image: bb:1\n    args:\n"
        )
        .replace("  - |\n    echo", "    - |\n      echo");
        args(&text)
    };
    assert_eq!((with("\n"), with("")), (json!(["echo\n"]), json!(["echo"])));
}

#[test]
fn json_is_json_and_nothing_else() {
    let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "annotations": {"x": null, "y": "\ud83d\ude00\/"}},
        "spec": {"priority": 5, "containers": [{"name": "c", "image": "bb:1", "args": [null], "resources": {"limits": {"cpu": 1.5}}}]}}"#;
    let pod = read(json).unwrap();
    assert_eq!(json!(pod.spec.containers[0].args), json!([""]));
    let annotations = pod.metadata.annotations.unwrap();
    assert_eq!((annotations["x"].as_str(), annotations["y"].as_str()), ("", "\u{1f600}/"));
    assert_eq!(json!(pod.spec.containers[0].resources)["limits"]["cpu"], json!("1.5"));
    for (from, to) in [
        // Whole numbers of JSON have neither a point nor an exponent.
        ("5,", "5.0,"),
        ("5,", "5e0,"),
        ("5,", "0x5,"),
        ("5,", "yes,"),
        ("\"kind\"", "kind"),
        ("{\"apiVersion\"", "# x\n{\"apiVersion\" :: "),
        ("]}}", "]}} x"),
        ("]}}", "],}}"),
    ] {
        assert!(read(&json.replace(from, to)).is_err(), "{to}");
    }
    let place = read(&json.replace("[null]", "[7]")).unwrap_err().to_string();
    assert!(place.contains("line 2") && place.contains("args[0]"), "{place}");
}

#[test]
fn kind_and_version_may_be_in_capitals_and_nothing_else() {
    let pod = read(&POD.replace("apiVersion", "APIVERSION").replace("kind", "Kind")).unwrap();
    assert_eq!(pod.warnings, Vec::<String>::new());
    let pod = read(&format!("Kind: Service\n{POD}")).unwrap();
    assert_eq!(pod.warnings, Vec::<String>::new(), "that in small letters counts");
    assert!(read(&POD.replace("metadata", "Metadata")).is_err());
    assert!(read(&POD.replace("kind: Pod", "kind: pod")).is_err());
    let pod = read(&POD.replace("name: c", "name: c, Args: [x]")).unwrap();
    assert_eq!(pod.warnings, ["spec.containers[0].Args is no field of a Pod and has no effect"]);
}
