//! Words for messages.

/// Longer texts from a file are cut in messages: a whole key may have been put there by mistake.
const MAX_QUOTED: usize = 80;

/// `message` with everything in double quotes cut at its first line end, and after 80 characters.
pub(crate) fn shorten(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some((before, quoted)) = rest.split_once('"') {
        let end = closing_quote(quoted);
        let (inside, after) = quoted.split_at(end);
        let line = inside.find("\\n").unwrap_or(inside.len());
        let cut = inside.char_indices().nth(MAX_QUOTED).map_or(line, |(at, _)| at.min(line));
        let mark = if cut < inside.len() { "..." } else { "" };
        out.push_str(&format!("{before}\"{}{mark}", &inside[..cut]));
        rest = match after.strip_prefix('"') {
            Some(after) => {
                out.push('"');
                after
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

/// Where the quote that is open at the beginning of `text` ends.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The one of `known` that `word` is most likely a slip of.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (word.len() / 3).max(1);
    let lower = word.to_lowercase();
    let distances = known.iter().map(|known| (distance(&lower, &known.to_lowercase()), *known));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, known)| known)
}

/// How many letters must be added, dropped, changed or swapped with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_quoted_is_cut_at_its_first_line_and_at_its_length() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(shorten(&format!("{key:?} is no path")), "\"-----BEGIN EC PRIVATE KEY-----...\" is no path");
        let (long, quote) = ("é".repeat(100), "a \"b\" \\");
        let cut = format!("{:?} in \"{}...\"", quote, "é".repeat(80));
        assert_eq!(shorten(&format!("{quote:?} in {long:?}")), cut);
        assert_eq!(shorten("no quotes; 5\" open"), "no quotes; 5\" open");
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_word_and_a_stranger_none() {
        let known = ["clusterName", "podSubnet", "name"];
        let cases = [("clustername", Some("clusterName")), ("podSubnets", Some("podSubnet")), ("nmae", Some("name"))];
        for (word, expected) in cases.into_iter().chain([("replicas", None), ("", None)]) {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }
}
