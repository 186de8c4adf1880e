#!/usr/bin/env bash
# serde-saphyr 2.1.1 and 2.2.0 (crates), read into serde_json::Value:
#
#   1. A plain scalar with a capital radix prefix is a number in 2.1.1 and text in 2.2.0: a minor update changes the type.
#   2. A number with a leading zero is a float in both: `017` is 17.0, neither the octal 15 of YAML 1.1 and of Go's
#      readers nor text, though `yes` and `on` are booleans as in YAML 1.1. A field for an integer that was read through
#      a Value refuses it.
#
# Needs cargo and a package registry. Works in a directory of its own, prints what it sees, and fails if that changes.
# Seen with rustc 1.95, 2026-11-29. Source: the crate's CHANGELOG for 2.2.0 (capital prefixes) and its src/parse_scalars.rs
# (a leading zero is octal with the option legacy_octal_numbers alone); https://yaml.org/type/int.html for YAML 1.1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

seen() { # VERSION: what that version reads of each scalar, a line each
  mkdir -p "$work/$1/src"
  cat >"$work/$1/Cargo.toml" <<TOML
[package]
name = "seen"
version = "0.0.0"
edition = "2021"

[dependencies]
serde-saphyr = "=$1"
serde_json = "=1.0.145"
TOML
  cat >"$work/$1/src/main.rs" <<'RUST'
fn main() {
    for scalar in ["0x1F", "0X1F", "0o17", "0O17", "017", "08", "yes", "on"] {
        let text = format!("value: {scalar}\n");
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        println!("{scalar} -> {}", read["value"]);
    }
}
RUST
  CARGO_TARGET_DIR=$work/target cargo run --quiet --manifest-path "$work/$1/Cargo.toml"
}

expect() { # VERSION OUTPUT
  local now
  now=$(seen "$1")
  printf 'serde-saphyr %s\n%s\n' "$1" "$now"
  [ "$now" = "$2" ] || { printf 'changed; it was\n%s\n' "$2" >&2; exit 1; }
}

expect 2.1.1 '0x1F -> 31
0X1F -> 31
0o17 -> 15
0O17 -> 15
017 -> 17.0
08 -> 8.0
yes -> true
on -> true'
expect 2.2.0 '0x1F -> 31
0X1F -> "0X1F"
0o17 -> 15
0O17 -> "0O17"
017 -> 17.0
08 -> 8.0
yes -> true
on -> true'
echo "as described"
