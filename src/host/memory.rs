//! The kernel's account of this machine's memory, for everything that asks how much there is.

use std::fs;
use std::path::Path;

/// `/proc/meminfo`, or nothing of it where that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct MemInfo(String);

impl MemInfo {
    /// Of this machine.
    pub fn read() -> Self {
        Self::read_below(Path::new("/proc"))
    }

    /// Of the machine whose `/proc` is `proc`.
    pub fn read_below(proc: &Path) -> Self {
        Self(fs::read_to_string(proc.join("meminfo")).unwrap_or_default())
    }

    /// The text of such a file.
    pub fn of(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What a line says (`MemTotal`), in KiB; None where there is no such line.
    pub fn kib(&self, name: &str) -> Option<u64> {
        field(&self.0, name)
    }

    /// The same in bytes.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.kib(name).map(|kib| kib.saturating_mul(1024))
    }
}

/// A value of a file of `name value` lines, or of `name: value kB`, as it stands there.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', ':']))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let info = MemInfo::of("MemTotal:        2048 kB\nMemFree: 1 kB\nInactive(file): 10 kB\n");
        assert_eq!((info.kib("MemTotal"), info.bytes("MemTotal")), (Some(2048), Some(2_097_152)));
        assert_eq!((info.kib("Inactive(file)"), info.kib("Mem"), info.kib("SwapTotal")), (Some(10), None, None));
        assert!(MemInfo::read().kib("MemTotal").is_some_and(|kib| kib > 0));
        assert_eq!(MemInfo::read_below(Path::new("/nonexistent-kubeboot")).kib("MemTotal"), None);
    }

    #[test]
    fn a_field_of_a_cgroups_file_is_read_as_it_stands() {
        assert_eq!(field("pgfault 9\npgmajfault 2\n", "pgmajfault"), Some(2));
        assert_eq!(field("pgfault x\n", "pgfault"), None);
    }
}
