//! What is written is read again as what it was.

use super::*;

/// Words and numbers that some reader of YAML takes for something else than text.
const HOSTILE: &[&str] = &[
    "y",
    "Y",
    "yes",
    "Yes",
    "YES",
    "n",
    "N",
    "no",
    "No",
    "NO",
    "on",
    "On",
    "ON",
    "off",
    "Off",
    "OFF",
    "true",
    "True",
    "TRUE",
    "false",
    "null",
    "Null",
    "NULL",
    "~",
    "",
    " ",
    "-",
    "--",
    "---",
    "...",
    "1",
    "-1",
    "+1",
    "1_000",
    "0644",
    "0o644",
    "0O17",
    "0x1F",
    "0X1f",
    "0x1_F",
    "0b11",
    "0B1",
    "1e3",
    "1E3",
    "1.0",
    ".5",
    "5.",
    "1_0.5",
    ".inf",
    "-.inf",
    ".nan",
    "12:30",
    "1:30:15",
    "190:20:30.15",
    "2001-01-01",
    "2001-12-14t21:59:43.10-05:00",
    "=",
    "<<",
    "*a",
    "&a",
    "!x",
    "!!str x",
    "%x",
    "@x",
    "`x",
    "a: b",
    "a #b",
    "#a",
    ": a",
    "a:",
    "- a",
    "? a",
    "[a]",
    "{a}",
    "a,b",
    "'",
    "\"",
    "\\",
    "\t",
    "\n",
    "a\nb\n\n",
    " a",
    "a ",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\r\n",
    "\0",
    "\u{7f}",
    "é",
    "🦀",
    "{{ x }}",
    "$(X)",
    "|",
    ">",
    "|\n a",
    "0777",
    "0b",
    "-0",
    "1e400",
    "+.inf",
    "9223372036854775808",
    "18446744073709551616",
    "2001-01-01T00:00:00Z",
    "--- a",
    "... a",
    "a\n---\nb\n...\n",
    "a: |",
    "a: [1",
    "*",
    "&",
    "! a",
    "\n\n",
    "\n a",
    " a\nb",
    "a\n b\n",
    "a\n\tb",
    "a\n\n\nb\n\n\n",
    "a \nb",
    "a\r\nb",
    "a\rb",
    "a\u{85}b",
    "a\u{2028}b",
    "a\u{2029}b\n",
    "a\n\u{2028}b",
    "\u{a0}",
    "\u{ad}",
    "\u{200b}",
    "\u{1}",
    "\u{1b}[0m",
    "\u{9f}",
    "\u{d7ff}\u{e000}",
    "\u{fffd}\u{fffe}\u{ffff}",
    "\u{10ffff}",
];

fn survives(value: &Value) -> Result<(), TestCaseError> {
    let text = to_string(value).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&to_value(&text).unwrap(), value, "strictly: {}", text);
    prop_assert_eq!(&to_value_lenient(&text).unwrap(), value, "as Go reads it: {}", text);
    prop_assert_eq!(&serde_yaml::from_str::<Value>(&text).unwrap(), value, "as libyaml reads it: {}", text);
    Ok(())
}

#[test]
fn every_hostile_word_survives_as_value_key_and_list_item() {
    for word in HOSTILE {
        survives(&json!({ "value": word, "list": [word, [word]], "map": { *word: word } })).unwrap();
    }
}

#[test]
fn a_long_text_and_a_deep_value_survive() {
    for length in [1023, 1024, 1025, 100_000] {
        let text = "x".repeat(length);
        for text in [text.clone(), format!("{text}: "), format!("{text}\n{text}"), text.replace("xx", "x ")] {
            survives(&json!({ "value": text, "list": [text, [text]] })).unwrap();
        }
    }
    let key = "k".repeat(1000);
    survives(&json!({ key.clone(): { key: 1 } })).unwrap();
    let deep = |depth: u32| {
        (0..depth).fold(json!("x"), |below, level| if level % 2 == 0 { json!([below]) } else { json!({ "a": below }) })
    };
    // One map, and as deep as is read at all.
    survives(&deep(30)).unwrap();
}

/// Documents as users write them, in which two readers of YAML find different things.
#[test]
fn what_only_one_reader_understands_is_read_and_written_so_that_both_do() {
    for (text, expected) in [
        ("a: 0644", json!({"a": 420})),
        ("a: 0o644", json!({"a": 420})),
        ("a: 0777", json!({"a": 511})),
        ("a: [yes, no, on, off, y, n]", json!({"a": [true, false, true, false, true, false]})),
        ("a: 1_000", json!({"a": 1000})),
        ("a: 1e3", json!({"a": 1000})),
        ("a: 0X1F", json!({"a": 31})),
        ("a: 18446744073709551616", json!({"a": 18_446_744_073_709_551_616.0})),
        ("a: 1e400", json!({"a": "1e400"})),
        ("a: 2001-01-01", json!({"a": "2001-01-01"})),
        ("a: 2001-12-14t21:59:43.10-05:00", json!({"a": "2001-12-14t21:59:43.10-05:00"})),
        ("a: 12:30:45", json!({"a": "12:30:45"})),
        ("a: ~\nb:\nc: null", json!({"a": null, "b": null, "c": null})),
        ("true: x\n1: z", json!({"true": "x", "1": "z"})),
        ("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", json!({"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}})),
        ("a: !!binary aGk=", json!({"a": "hi"})),
        ("a: !own x", json!({"a": "x"})),
        ("", json!(null)),
        ("# nothing", json!(null)),
        ("---\n", json!(null)),
        ("--- {a: 1}\n...\n", json!({"a": 1})),
    ] {
        let value = to_value(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value, expected, "{text}");
        let written = to_string(&value).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(to_confirmed_value(&written).unwrap(), value, "{text}: {written}");
    }
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(HOSTILE).prop_map(str::to_owned),
        "[ -~\t\n]{0,20}",
        "[0-9_:.eExXoObB+-]{1,8}",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn any_text_survives_writing_and_reading(
        key in hostile(),
        value in hostile(),
        items in prop::collection::vec(hostile(), 0..4),
    ) {
        survives(&json!({ key: value, "items": items, "deep": [{ "x": items }] }))?;
    }

    #[test]
    fn any_number_survives_writing_and_reading(
        whole in any::<i64>(),
        large in any::<u64>(),
        fraction in prop_oneof![any::<f64>(), -1e6..1e6, (-400..400_i32).prop_map(|power| 10_f64.powi(power))],
    ) {
        let text = to_string(&json!({ "list": [whole, large, fraction] }));
        let text = text.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        let read = to_value(&text).unwrap();
        prop_assert_eq!(&read["list"][0], &json!(whole));
        prop_assert_eq!(&read["list"][1], &json!(large));
        // JSON has none without end, and a whole one is read without its point.
        prop_assert_eq!(read["list"][2].as_f64(), fraction.is_finite().then_some(fraction), "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>(), yamlish in "[a-z:\\[\\]{} \n\"'&*!|>%@#-]{0,60}") {
        let _ = to_value(&text);
        let _ = to_value(&yamlish);
        let _ = documents(&yamlish);
    }
}
