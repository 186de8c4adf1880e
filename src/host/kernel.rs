//! How the running kernel was built.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

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

/// A file that is not there, or is not whole, does not count.
fn text(path: &Path) -> Option<String> {
    match path.extension() {
        Some(extension) if extension == "gz" => unpacked(path).ok(),
        _ => fs::read_to_string(path).ok(),
    }
}

fn unpacked(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(fs::File::open(path)?).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

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

    /// `bytes` as one member of a gzip file.
    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_kernels_own_word_comes_first_though_it_is_compressed() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["proc", "boot"] {
            make_dirs(&root.path().join(dir), 0o755).unwrap();
        }
        write_file(&root.path().join("boot/config-6.1.0"), b"CONFIG_HZ=100\n", 0o644).unwrap();
        let own = root.path().join("proc/config.gz");
        let (first, second) = TEXT.split_at(20);
        let whole = packed(TEXT.as_bytes());
        let members = [packed(first.as_bytes()), packed(second.as_bytes())].concat();
        for file in [&whole, &members] {
            write_file(&own, file, 0o644).unwrap();
            assert_eq!(options(root.path(), "6.1.0"), Some(expected()));
        }
        // What is cut off, or is not compressed at all, leaves it to the package's file.
        for file in [&whole[..whole.len() - 4], TEXT.as_bytes()] {
            write_file(&own, file, 0o644).unwrap();
            assert_eq!(options(root.path(), "6.1.0").unwrap()["HZ"], "100");
        }
    }
}
