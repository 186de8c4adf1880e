//! How the running kernel was built.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The options that are set: `y`, `m` or a value, by their names without `CONFIG_`. None where the kernel, and its
/// package, do not tell.
pub type Options = BTreeMap<String, String>;

/// Reads them where kernels and distributions leave them, as kubeadm does.
pub fn options(root: &Path, release: &str) -> Option<Options> {
    let places = [
        "proc/config.gz".to_owned(),
        format!("boot/config-{release}"),
        format!("usr/src/linux-{release}/.config"),
        "usr/src/linux/.config".to_owned(),
        format!("usr/lib/modules/{release}/config"),
        format!("usr/lib/ostree-boot/config-{release}"),
        format!("usr/lib/kernel/config-{release}"),
        format!("usr/src/linux-headers-{release}/.config"),
        format!("lib/modules/{release}/build/.config"),
    ];
    places.iter().map(|place| root.join(place)).find_map(|path| text(&path)).map(|text| parse(&text))
}

fn text(path: &Path) -> Option<String> {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return fs::read_to_string(path).ok();
    }
    fs::metadata(path).ok()?;
    // The one place where something is compressed; every machine has the program.
    let unpacked =
        Command::new("gzip").arg("-dc").arg(path).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    unpacked.status.success().then(|| String::from_utf8_lossy(&unpacked.stdout).into_owned())
}

fn parse(text: &str) -> Options {
    let option = |line: &str| {
        let (name, value) = line.trim().strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::{make_dirs, write_file};

    const TEXT: &str = "# Linux\nCONFIG_CGROUPS=y\nCONFIG_EXT4_FS=m\n# CONFIG_MEMCG is not set\nCONFIG_HZ=250\n";

    fn expected() -> Options {
        [("CGROUPS", "y"), ("EXT4_FS", "m"), ("HZ", "250")].map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    }

    #[test]
    fn the_packages_file_is_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(options(root.path(), "6.1.0"), None);
        make_dirs(&root.path().join("boot"), 0o755).unwrap();
        write_file(&root.path().join("boot/config-6.1.0"), TEXT.as_bytes(), 0o644).unwrap();
        assert_eq!(options(root.path(), "6.1.0"), Some(expected()));
        assert_eq!(options(root.path(), "6.2.0"), None, "another kernel's");
    }

    #[test]
    fn the_kernels_own_word_comes_first_though_it_is_compressed() {
        let root = tempfile::tempdir().unwrap();
        make_dirs(&root.path().join("proc"), 0o755).unwrap();
        write_file(&root.path().join("proc/config"), TEXT.as_bytes(), 0o644).unwrap();
        assert!(Command::new("gzip").arg(root.path().join("proc/config")).status().unwrap().success());
        assert_eq!(options(root.path(), "6.1.0"), Some(expected()));
    }
}
