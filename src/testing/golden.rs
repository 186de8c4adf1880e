#![allow(clippy::panic, reason = "a test helper fails by panicking")]

//! Golden files: our own output, kept below `tests/golden`, compared as text.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::host::fs::{make_dirs, write_file};
use crate::host::tree::MemoryTree;

/// Set to `1` this writes the golden files again; the tests that did so fail on purpose, so that no run passes by
/// writing down what it found.
const UPDATE: &str = "KUBEBOOT_UPDATE_GOLDEN";

/// Compares `text` with `tests/golden/NAME`.
///
/// # Panics
/// When they differ, with the lines that do; when there is no such file; always while files are updated.
pub fn assert_golden(name: &str, text: &str) {
    assert_generated(&format!("tests/golden/{name}"), text);
}

/// Compares `text` with the file `path` of the repository, which is written from it.
///
/// # Panics
/// As [`assert_golden`] does.
pub fn assert_generated(path: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var(UPDATE).as_deref() == Ok("1") {
        make_dirs(path.parent().unwrap_or(Path::new("/")), 0o755).expect("a directory for golden files");
        write_file(&path, text.as_bytes(), 0o644).expect("a golden file");
        panic!("wrote {}; look at it and run again without {UPDATE}", path.display());
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != text {
        let diff = similar::TextDiff::from_lines(expected.as_str(), text);
        let diff = diff.unified_diff().header("golden", "now").to_string();
        panic!("{} differs ({UPDATE}=1 writes it anew):\n{diff}", path.display());
    }
}

/// Everything in `tree` as one text: directories and files with their modes, in order of their paths.
pub fn dump(tree: &MemoryTree) -> String {
    let mut text = String::new();
    for (path, mode) in tree.dirs() {
        writeln!(text, "### {}/ {mode:04o}", path.display()).expect("a string takes everything");
    }
    for (path, file) in tree.files() {
        let content = String::from_utf8_lossy(&file.content);
        write!(text, "\n### {} {:04o}\n{content}", path.display(), file.mode).expect("a string takes everything");
    }
    text
}
