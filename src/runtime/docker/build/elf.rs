//! What a program is made for and what it links: just enough of ELF.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::BuildError;

/// How much of a file holds its headers.
const HEADERS: u64 = 64 * 1024;

/// Program header type of the interpreter's path.
const PT_INTERP: u32 = 3;

/// ELF machine numbers, Go's names (as image configurations have them) and Rust's.
const ARCHITECTURES: [(u16, &str, &str); 5] = [
    (0x3e, "amd64", "x86_64"),
    (0xb7, "arm64", "aarch64"),
    (0xf3, "riscv64", "riscv64"),
    (0x15, "ppc64le", "powerpc64"),
    (0x16, "s390x", "s390x"),
];

/// A program.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// In Go's words.
    pub architecture: &'static str,
    /// The dynamic linker, None for a static program.
    pub interpreter: Option<String>,
}

/// Reads a program's headers.
pub fn read(path: &Path) -> Result<Program, BuildError> {
    let failed = |source| BuildError::Read { path: path.to_owned(), source };
    let mut head = Vec::new();
    File::open(path).map_err(failed)?.take(HEADERS).read_to_end(&mut head).map_err(failed)?;
    parse(&head).ok_or_else(|| BuildError::NotElf { path: path.to_owned() })
}

/// The architecture of this program.
pub fn own_architecture() -> &'static str {
    let own = ARCHITECTURES.iter().find(|(_, _, rust)| *rust == std::env::consts::ARCH);
    own.map_or(std::env::consts::ARCH, |(_, go, _)| go)
}

/// Reads 64-bit ELF headers; None for anything else.
fn parse(bytes: &[u8]) -> Option<Program> {
    if bytes.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let reader = Reader { bytes, big_endian: *bytes.get(5)? == 2 };
    let machine = u16::try_from(reader.number(18, 2)?).ok()?;
    let (_, architecture, _) = ARCHITECTURES.iter().find(|(number, ..)| *number == machine)?;
    let (table, size, count) = (reader.number(32, 8)?, reader.number(54, 2)?, reader.number(56, 2)?);
    for index in 0..count {
        let header = usize::try_from(table.checked_add(index * size)?).ok()?;
        if reader.number(header, 4)? == u64::from(PT_INTERP) {
            let start = usize::try_from(reader.number(header.checked_add(8)?, 8)?).ok()?;
            let length = usize::try_from(reader.number(header.checked_add(32)?, 8)?).ok()?;
            let path = bytes.get(start..start.checked_add(length)?)?;
            let interpreter = String::from_utf8_lossy(path).trim_end_matches('\0').to_owned();
            return Some(Program { architecture, interpreter: Some(interpreter) });
        }
    }
    Some(Program { architecture, interpreter: None })
}

struct Reader<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Reader<'_> {
    fn number(&self, at: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let push = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) })
    }
}

/// The files in what `ldd` prints; the name of the first library that is missing as an error. Lines are
/// `libc.so.6 => /lib/libc.so.6 (0x...)`, `/lib64/ld-linux.so.2 (0x...)` and `linux-vdso.so.1 (0x...)`, which is no
/// file.
pub fn parse_ldd(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, place) = line.split_once("=>").map_or((line, line), |(name, place)| (name.trim(), place.trim()));
        if place.starts_with("not found") {
            return Err(name.to_owned());
        }
        let file = place.split(" (0x").next().unwrap_or(place);
        if file.starts_with('/') {
            files.push(PathBuf::from(file));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A 64-bit little-endian header for `machine` with one program header, an interpreter's if there is one.
    fn elf(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64; // the table's place
        bytes[54] = 56; // a header's size
        bytes[56] = 1; // one header
        bytes[64] = if interpreter.is_some() { 3 } else { 1 };
        let text = format!("{}\0", interpreter.unwrap_or_default());
        bytes[72] = 120;
        bytes[96] = u8::try_from(text.len()).unwrap();
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn a_program_says_its_architecture_and_its_interpreter() {
        let linked = parse(&elf(0xb7, Some("/lib/ld-linux-aarch64.so.1"))).unwrap();
        assert_eq!(linked.architecture, "arm64");
        assert_eq!(linked.interpreter.as_deref(), Some("/lib/ld-linux-aarch64.so.1"));
        assert_eq!(parse(&elf(0x3e, None)).unwrap().interpreter, None);
    }

    #[test]
    fn what_is_cut_off_or_no_program_is_refused_without_a_panic() {
        let whole = elf(0x3e, Some("/lib64/ld.so"));
        for length in 0..whole.len() {
            let _ = parse(&whole[..length]);
        }
        assert_eq!(parse(b"#!/bin/sh\nexit 0\n"), None);
        let mut wild = elf(0x3e, Some("/lib64/ld.so"));
        wild[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(parse(&wild), None);
    }

    #[test]
    fn ldd_is_read_for_files_and_for_what_is_missing() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let files = parse_ldd(text).unwrap();
        assert_eq!(files, [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert_eq!(parse_ldd("\tlibfoo.so.1 => not found\n"), Err("libfoo.so.1".to_owned()));
        assert_eq!(parse_ldd("\tstatically linked\n"), Ok(vec![]));
    }
}
