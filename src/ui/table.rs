//! Tables as `kubectl get` prints them: no borders, columns three blanks apart.

use comfy_table::{ContentArrangement, Table};

/// Lines up `rows` below `headers`; each line ends with a line break and none with blanks.
pub fn table<const N: usize>(headers: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_borders() {
        let rows = [["etcd".to_owned(), "Running".into()], ["kube-apiserver".into(), "Waiting".into()]];
        insta::assert_snapshot!(table(["NAME", "STATE"], rows), @r"
        NAME             STATE
        etcd             Running
        kube-apiserver   Waiting
        ");
    }
}
