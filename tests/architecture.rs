//! The house: which room may know which. The order is that of the modules in src/lib.rs and src/agent/mod.rs, and there are
//! no exceptions. Paths are read from the tokens of every file, those inside of macros too; tests may know everything.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The rooms of the crate. Each knows those behind it.
const ROOMS: &[&str] = &[
    "cli",
    "ui",
    "workflow",
    "cluster",
    "etcd",
    "agent",
    "kubelet",
    "runtime",
    "manifests",
    "pki",
    "config",
    "release",
    "host",
    "event",
    "error",
    "yaml",
];

/// The rooms of the agent. Each knows those behind it.
const AGENT: &[&str] = &[
    "watchdog",
    "server",
    "worker",
    "context",
    "cluster",
    "disk",
    "pull",
    "messages",
    "hooks",
    "probe",
    "container",
    "logs",
    "devices",
    "rpc",
    "cleanup",
    "volumes",
    "wording",
    "objects",
    "cgroups",
    "apiserver",
    "counters",
    "startups",
    "operations",
    "runs",
    "board",
    "status",
    "admission",
    "source",
    "lock",
    "crash",
    "backoff",
    "control",
    "attempts",
    "histogram",
    "events",
    "options",
    "pod",
];

/// Who may know `agent/cluster`: without an API server everything else goes on.
const MAY_KNOW_THE_CLUSTER: &[&str] = &["", "context", "cluster"];
/// Who may know everything that workers share.
const MAY_KNOW_THE_CONTEXT: &[&str] = &["", "context", "worker", "server"];

/// A path that a file mentions, from the crate's root on.
struct Mention {
    file: PathBuf,
    /// The module that mentions it.
    from: Vec<String>,
    to: Vec<String>,
}

/// The modules of a file: `agent`, `pod` of src/agent/pod/mod.rs.
fn module_of(file: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

fn is_test(module: &[String]) -> bool {
    module.iter().any(|name| name == "tests" || name.ends_with("_tests") || name == "testing" || name == "trial")
}

/// Every path of the sources outside of tests.
fn mentions() -> Vec<Mention> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut dirs, mut all) = (vec![root.clone()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(&root).unwrap().to_owned();
                let from = module_of(&file);
                if !is_test(&from) {
                    let tokens = TokenStream::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
                    let mut found = Vec::new();
                    walk(&tokens.into_iter().collect::<Vec<_>>(), &from, &mut found);
                    all.extend(found.into_iter().map(|(from, to)| Mention { file: file.clone(), from, to }));
                }
            }
        }
    }
    assert!(all.len() > 1000, "{} paths in src", all.len());
    all
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(tokens.get(at)) && colon(tokens.get(at + 1))
}

fn walk(tokens: &[TokenTree], here: &[String], found: &mut Vec<(Vec<String>, Vec<String>)>) {
    let mut at = 0;
    while at < tokens.len() {
        let inline = ident(tokens.get(at)).filter(|word| word == "mod").and_then(|_| ident(tokens.get(at + 1)));
        match (&tokens[at], inline, tokens.get(at + 2)) {
            (_, Some(name), Some(TokenTree::Group(group))) if group.delimiter() == Delimiter::Brace => {
                let inside = [here, &[name]].concat();
                if !is_test(&inside) {
                    walk(&group.stream().into_iter().collect::<Vec<_>>(), &inside, found);
                }
                at += 3;
                continue;
            }
            (TokenTree::Group(group), ..) => walk(&group.stream().into_iter().collect::<Vec<_>>(), here, found),
            (TokenTree::Ident(word), ..) if ["crate", "super", "self"].contains(&word.to_string().as_str()) => {
                let goes_on = at > 0
                    && (matches!(&tokens[at - 1], TokenTree::Punct(punct) if punct.as_char() == '$')
                        || at > 1 && is_colons(tokens, at - 2));
                if !goes_on && is_colons(tokens, at + 1) {
                    let mut path = if *word == "crate" { vec![] } else { here.to_vec() };
                    if *word == "super" {
                        path.pop();
                    }
                    at = follow(tokens, at + 3, path, here, found);
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Follows a path from behind a `::`; returns where it ends.
fn follow(
    tokens: &[TokenTree],
    mut at: usize,
    mut path: Vec<String>,
    here: &[String],
    found: &mut Vec<(Vec<String>, Vec<String>)>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => {
                match word.to_string().as_str() {
                    "super" => drop(path.pop()),
                    "self" => {}
                    name => path.push(name.to_owned()),
                }
                at += 1;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                for one in inner.split(is_comma).filter(|one| !one.is_empty()) {
                    follow(one, 0, path.clone(), here, found);
                }
                return at + 1;
            }
            _ => {
                found.push((here.to_vec(), path));
                return at + 1;
            }
        }
        if !is_colons(tokens, at) {
            found.push((here.to_vec(), path));
            return at;
        }
        at += 2;
    }
}

/// The modules that a file declares, in order, without those that exist for tests.
fn declared(file: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap();
    let names = text.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    });
    names.filter(|name| !is_test(std::slice::from_ref(name))).collect()
}

fn name(module: &[String], at: usize) -> &str {
    module.get(at).map_or("", String::as_str)
}

/// Mentions of one of `rooms` from another one that stands behind it.
fn upward(mentions: &[Mention], rooms: &[&str], below: Option<&str>) -> Vec<String> {
    let depth = usize::from(below.is_some());
    let in_house = |module: &[String]| below.is_none_or(|room| name(module, 0) == room);
    let place = |module: &[String]| rooms.iter().position(|room| *room == name(module, depth));
    let of_house = mentions.iter().filter(|mention| in_house(&mention.from) && in_house(&mention.to));
    let wrong = of_house.filter(|mention| match (place(&mention.from), place(&mention.to)) {
        (Some(from), Some(to)) => to < from,
        // What puts the rooms together knows them all, and none of them knows it.
        (Some(_), None) => below.is_some() && mention.to.len() > depth,
        (None, _) => false,
    });
    wrong.map(|mention| format!("{}: {}", mention.file.display(), mention.to.join("::"))).collect()
}

#[test]
fn the_lists_of_rooms_are_those_of_the_sources() {
    assert_eq!(declared("lib.rs"), ROOMS);
    assert_eq!(declared("agent/mod.rs"), AGENT);
}

#[test]
fn a_room_knows_none_above_it() {
    let mentions = mentions();
    assert_eq!(upward(&mentions, ROOMS, None), Vec::<String>::new());
    assert_eq!(upward(&mentions, AGENT, Some("agent")), Vec::<String>::new());
}

#[test]
fn what_runs_pods_knows_no_cluster_and_few_know_what_workers_share() {
    let mentions = mentions();
    let knows = |what: &str, may: &[&str]| -> Vec<String> {
        let of_agent =
            mentions.iter().filter(|mention| name(&mention.from, 0) == "agent" && name(&mention.to, 0) == "agent");
        let wrong = of_agent.filter(|mention| name(&mention.to, 1) == what && !may.contains(&name(&mention.from, 1)));
        wrong.map(|mention| format!("{}: {}", mention.file.display(), mention.to.join("::"))).collect()
    };
    assert_eq!(knows("cluster", MAY_KNOW_THE_CLUSTER), Vec::<String>::new());
    assert_eq!(knows("context", MAY_KNOW_THE_CONTEXT), Vec::<String>::new());
}

#[test]
fn paths_are_found_in_groups_macros_and_modules_and_not_in_tests_comments_or_strings() {
    let text = r#"
        //! See crate::cli::main.
        use crate::{host::fs, pki::{self, key::Key}};
        mod inner { fn f() { println!("{}", super::super::ui::TABLE, "crate::cli"); } }
        #[cfg(test)]
        mod tests { use crate::cli::Cli; }
        pub(in crate::agent) fn g(one: self::deep::One) -> $crate::Other {}
    "#;
    let here = ["agent".to_owned(), "pod".to_owned()];
    let mut found = Vec::new();
    walk(&TokenStream::from_str(text).unwrap().into_iter().collect::<Vec<_>>(), &here, &mut found);
    let paths: Vec<String> = found.into_iter().map(|(_, to)| to.join("::")).collect();
    assert_eq!(paths, ["host::fs", "pki", "pki::key::Key", "agent::ui::TABLE", "agent", "agent::pod::deep::One"]);
}
