#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn busybox() -> ImageSpec {
    ImageSpec {
        links: vec![("/bin/sh".into(), "/usr/local/bin/busybox".into())],
        ..ImageSpec::of_program("bb:1", "busybox", Path::new("/bin/busybox"))
    }
}

#[test]
fn the_layout_has_every_directory_before_what_is_in_it_and_the_programs_libraries_where_they_were() {
    let libraries = BTreeSet::from([PathBuf::from("/lib64/ld-linux-x86-64.so.2")]);
    let entries = layout(&busybox(), &libraries);
    let place = |path: &str| entries.iter().position(|entry| entry.path == path).unwrap();
    for entry in &entries {
        let parent = Path::new(&entry.path).parent().unwrap().to_str().unwrap();
        assert!(parent == "/" || place(parent) < place(&entry.path), "{}", entry.path);
    }
    let mode = |path: &str| entries[place(path)].mode;
    assert_eq!((mode("/tmp"), mode("/usr/local/bin/busybox"), mode("/etc/passwd")), (0o1777, 0o755, 0o644));
    assert_eq!(entries[place("/bin/sh")].content, Content::Link("/usr/local/bin/busybox".into()));
    let library = &entries[place("/lib64/ld-linux-x86-64.so.2")];
    assert_eq!(library.content, Content::Local("/lib64/ld-linux-x86-64.so.2".into()));
}

#[test]
fn a_layer_reads_back_as_its_layout_and_is_the_same_every_time() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file.as_file(), b"program").unwrap();
    let spec = ImageSpec::of_program("x:1", "x", file.path());
    let image = archive::Image {
        reference: "x:1".into(),
        architecture: "amd64",
        entrypoint: vec![],
        entries: layout(&spec, &BTreeSet::new()),
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    image.write_layer(&mut first).unwrap();
    image.write_layer(&mut second).unwrap();
    assert_eq!(first, second);
    let mut tar = tar::Archive::new(first.as_slice());
    let mut found = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        found.insert(path, (entry.header().mode().unwrap(), text));
    }
    assert_eq!(found["usr/local/bin/x"], (0o755, "program".to_owned()));
    assert_eq!(found["tmp/"].0, 0o1777);
    assert!(found["etc/passwd"].1.starts_with("root:x:0:0:"));
}

#[test]
fn a_script_is_no_program_and_a_missing_file_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file.as_file(), b"#!/bin/sh\n").unwrap();
    let error = Files::gather(&ImageSpec::of_program("x:1", "x", file.path())).err().unwrap();
    assert!(matches!(error, BuildError::NotElf { .. }), "{error}");
    let error = Files::gather(&ImageSpec::of_program("x:1", "x", Path::new("/nowhere/x"))).err().unwrap();
    assert!(error.to_string().contains("/nowhere/x"), "{error}");
}
