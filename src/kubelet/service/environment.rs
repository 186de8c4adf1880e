//! Files of variables, and how systemd makes arguments of them: without systemd the same files mean the same.

/// Variables of an `EnvironmentFile=`, in order. Comments and lines that assign nothing are skipped.
pub(super) fn variables(text: &str) -> Vec<(String, String)> {
    let assignment = |line: &str| {
        let line = line.trim();
        let (name, value) = line.split_once('=').filter(|_| !line.starts_with(['#', ';']))?;
        // A value is one string: words are only made where it is used.
        Some((name.trim().to_owned(), pieces(value.trim(), false).concat()))
    };
    // A backslash at the end of a line continues it.
    text.replace("\\\n", " ").lines().filter_map(assignment).collect()
}

/// The words of an unbraced `$VARIABLE` in `ExecStart=`: split at blanks, quotes hold a word together.
pub(super) fn words(value: &str) -> Vec<String> {
    pieces(value, true)
}

/// Takes quotes and backslashes away; cuts at blanks outside of them when `split` is set.
fn pieces(text: &str, split: bool) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c, None) if split && c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_flags_gives_the_flags_systemd_would_pass() {
        let text = "# comment\nKUBELET_KUBEADM_ARGS=\"--a=1 \\\"--b=two words\\\" --c='x y'\"\n\nnothing\nEMPTY=\n";
        let variables = variables(text);
        assert_eq!(variables.len(), 2);
        assert_eq!(variables[0].0, "KUBELET_KUBEADM_ARGS");
        assert_eq!(words(&variables[0].1), ["--a=1", "--b=two words", "--c=x y"]);
        assert_eq!(variables[1], ("EMPTY".to_owned(), String::new()));
        assert!(words("").is_empty());
    }

    #[test]
    fn a_backslash_keeps_the_next_character_except_in_single_quotes() {
        assert_eq!(words(r#"a\ b '\n' "\"" ''"#), ["a b", r"\n", "\"", ""]);
    }
}
