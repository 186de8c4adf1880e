//! Which file of this room knows which.

use std::fs;
use std::path::Path;

/// The files. Each knows those behind it, and none knows `mod.rs`.
const ORDER: &[&str] = &[
    "reference",
    "follow/mod",
    "follow/gates",
    "follow/node",
    "follow/server",
    "kubelet_config",
    "flags",
    "table/mod",
    "table/set",
    "table/ignored",
    "table/pods",
    "table/node",
    "table/server",
    "table/print",
    "table/row",
    "values",
    "given",
    "flag_shown",
    "flag_value",
    "agent_options",
    "gates",
    "node",
    "server",
    "eviction",
    "config_files",
    "error",
];

fn place(name: &str) -> Option<usize> {
    let whole = format!("{name}/mod");
    ORDER.iter().position(|file| *file == name || *file == whole)
}

/// What a file imports of this room, by the names that follow `use super::` and `use crate::agent::options::`.
fn imports(file: &str, text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let folder = file.split_once('/').filter(|(_, name)| *name != "mod").map(|(folder, _)| format!("{folder}/"));
    let mut found = Vec::new();
    for line in code.lines() {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let (path, above) = match (line.strip_prefix("use super::"), line.strip_prefix("use crate::agent::options::")) {
            (Some(path), _) => (path, folder.clone().unwrap_or_default()),
            (None, Some(path)) => (path, String::new()),
            (None, None) => continue,
        };
        let path = path.trim_end_matches(';');
        let names = match path.strip_prefix('{') {
            Some(names) => names.trim_end_matches('}').split(", ").collect(),
            None => vec![path],
        };
        found.extend(names.iter().map(|name| format!("{above}{}", name.split("::").next().unwrap())));
    }
    found
}

#[test]
fn no_two_files_of_the_room_know_each_other() {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/agent/options");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (own, file) in ORDER.iter().enumerate() {
        let text = fs::read_to_string(room.join(format!("{file}.rs"))).unwrap();
        for import in imports(file, &text) {
            seen += 1;
            if place(&import).is_none_or(|place| place <= own) {
                wrong.push(format!("{file} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty() && seen > 50, "{seen}: {wrong:#?}");
    let listed =
        |folder: &str| ORDER.iter().filter(|file| file.rsplit_once('/').map_or("", |(dir, _)| dir) == folder).count();
    for folder in ["", "follow", "table"] {
        let files =
            fs::read_dir(room.join(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known = |name: &String| {
            name.ends_with(".rs") && !name.ends_with("tests.rs") && (name != "mod.rs" || !folder.is_empty())
        };
        assert_eq!(files.filter(known).count(), listed(folder), "every file of {folder:?} has its place");
    }
}
