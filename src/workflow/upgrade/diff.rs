//! What an upgrade would change, line by line.

use similar::TextDiff;

use super::plan::Step;

/// A unified diff of every step, in order, with `context` lines around each change.
pub fn unified(steps: &[Step], context: usize) -> String {
    steps.iter().map(|step| unified_one(step, context)).collect()
}

fn unified_one(step: &Step, context: usize) -> String {
    let (old, new) = (String::from_utf8_lossy(&step.old), String::from_utf8_lossy(&step.new));
    let file = step.file.display().to_string();
    TextDiff::from_lines(old.as_ref(), new.as_ref())
        .unified_diff()
        .context_radius(context)
        .header(&file, &format!("{file} (new)"))
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_diff_names_the_file_and_shows_both_images() {
        let step = Step {
            component: "etcd",
            file: PathBuf::from("/m/etcd.yaml"),
            old: b"a: 1\nimage: x:v1\nb: 2\n".to_vec(),
            new: b"a: 1\nimage: x:v2\nb: 2\n".to_vec(),
            old_image: "x:v1".into(),
            new_image: "x:v2".into(),
            data_dir: None,
        };
        let expected =
            "--- /m/etcd.yaml\n+++ /m/etcd.yaml (new)\n@@ -1,3 +1,3 @@\n a: 1\n-image: x:v1\n+image: x:v2\n b: 2\n";
        assert_eq!(unified(&[step], 3), expected);
    }
}
