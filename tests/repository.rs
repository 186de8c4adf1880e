//! The repository checked against itself: links and paths of the pages lead somewhere, a test that is named exists, and every
//! dependency is used.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The README and everything in docs/, relative to the repository.
fn pages() -> Vec<PathBuf> {
    let docs =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    docs.chain([PathBuf::from("README.md")]).collect()
}

/// What stands between backticks in a line.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// All files below `dir`, as one text.
fn sources(dir: &Path, all: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, all),
            false if path.extension().is_some_and(|end| end == "rs") => {
                all.push_str(&fs::read_to_string(path).unwrap())
            }
            false => {}
        }
    }
}

#[test]
fn the_readme_is_for_five_minutes() {
    let lines = read("README.md").lines().count();
    assert!(lines < 200, "README.md has {lines} lines: move what is long to docs/");
}

#[test]
fn every_link_leads_to_a_file() {
    let mut links = 0;
    for page in pages() {
        let text = read(page.to_str().unwrap());
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(root().join(page.parent().unwrap()).join(file).exists(), "{}: {target}", page.display());
            links += 1;
        }
    }
    assert!(links > 10, "{links} links: how they are found does not work any more");
}

#[test]
fn every_path_that_the_architecture_names_exists() {
    let text = read("docs/architecture.md");
    let tops = ["src/", "tests/", "templates/", "scripts/", "docs/", "fuzz/"];
    let paths: Vec<_> = code(&text).filter(|code| tops.iter().any(|top| code.starts_with(top))).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !path.contains('*') && !root().join(path).exists()).collect();
    assert!(paths.len() > 50, "{} paths: how they are found does not work any more", paths.len());
    assert!(missing.is_empty(), "docs/architecture.md names what is not there: {missing:?}");
}

#[test]
fn every_difference_has_a_reason() {
    let text = read("docs/differences.md");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 40, "{} rows: how they are found does not work any more", rows.len());
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let (reason, is_table) = (cells.last().unwrap().trim(), cells.len() > 2);
        assert!(!is_table || (!reason.is_empty() && reason != "-"), "no reason: {row}");
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let (text, mut all) = (read("docs/threat-model.md"), String::new());
    sources(&root().join("src"), &mut all);
    sources(&root().join("tests"), &mut all);
    let names: Vec<_> = code(&text).filter(|code| code.matches('_').count() > 3).collect();
    let missing: Vec<_> = names.iter().filter(|name| !all.contains(&format!("fn {name}"))).collect();
    assert!(names.len() > 30, "{} names: how they are found does not work any more", names.len());
    assert!(missing.is_empty(), "docs/threat-model.md names tests that do not exist: {missing:?}");
}

/// Whether `text` uses the crate `name`: in a path (`name::`), or as a whole (`use name;`, `use name as other`).
fn uses(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].trim_end_matches("::").chars().next_back();
        let is_whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        is_whole && ["::", ";", " as "].iter().any(|after| text[at + name.len()..].starts_with(after))
    })
}

/// The crates of a table of Cargo.toml, by their names in code.
fn crates(manifest: &str, table: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != table).skip(1).take_while(|line| !line.starts_with('['));
    let names = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

#[test]
fn every_dependency_is_used() {
    let (manifest, mut code) = (read("Cargo.toml"), String::new());
    sources(&root().join("src"), &mut code);
    let (linked, for_tests) = (crates(&manifest, "[dependencies]"), crates(&manifest, "[dev-dependencies]"));
    let unused: Vec<_> = linked.iter().filter(|name| !uses(&code, name)).collect();
    assert!(unused.is_empty() && linked.len() > 30, "unused in src/: {unused:?}, of {}", linked.len());
    sources(&root().join("tests"), &mut code);
    sources(&root().join("benches"), &mut code);
    let unused: Vec<_> = for_tests.iter().filter(|name| !uses(&code, name)).collect();
    assert!(unused.is_empty() && for_tests.len() > 3, "unused in tests: {unused:?}, of {}", for_tests.len());
}

#[test]
fn a_crate_is_used_by_its_whole_name() {
    assert!(uses("use which::which;", "which") && uses("::bytes::Bytes", "bytes") && uses("use tar;", "tar"));
    assert!(!uses("let http = 1; a_http::x; crate::http::y", "http") && !uses("// which one", "which"));
}
