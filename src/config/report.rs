//! Collects what is wrong, and finds for each field the place where it was written.

use std::path::PathBuf;

use super::error::{ConfigProblem, Place};
use crate::yaml::{self, DecodeError, Node, Position, YamlError};

/// A document, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `InitConfiguration`.
    Init,
    /// `ClusterConfiguration`.
    Cluster,
    /// `JoinConfiguration`.
    Join,
    /// `ResetConfiguration`.
    Reset,
    /// `UpgradeConfiguration`.
    Upgrade,
    /// `KubebootConfiguration`.
    Kubeboot,
    /// `KubeletConfiguration`.
    Kubelet,
    /// `KubeProxyConfiguration`.
    KubeProxy,
}

/// How many parts there are.
const PARTS: usize = Part::KubeProxy as usize + 1;

/// Fields and the flags that set them.
pub(super) type FlagNames = Vec<(&'static str, &'static str)>;

/// Everything found so far.
#[derive(Debug)]
pub(super) struct Report {
    /// The file; None when there are flags only.
    file: Option<PathBuf>,
    flags: FlagNames,
    /// The documents of the file, by [`Part`].
    parts: [Option<Node>; PARTS],
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

impl Report {
    /// An empty report on `file`, or on `flags`.
    pub fn of(file: Option<PathBuf>, flags: FlagNames) -> Self {
        Self { file, flags, parts: Default::default(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// Keeps the document that fields of `part` are looked up in.
    pub fn keep(&mut self, part: Part, node: Node) {
        self.parts[part as usize] = Some(node);
    }

    /// As [`Self::part`], to change it.
    pub fn part_mut(&mut self, part: Part) -> &mut Option<Node> {
        &mut self.parts[part as usize]
    }

    /// The document of `part`, if the file has one.
    pub fn part(&self, part: Part) -> Option<&Node> {
        self.parts[part as usize].as_ref()
    }

    /// Whether the user wrote `field`, in the file.
    pub fn wrote(&self, part: Part, field: &str) -> bool {
        self.parts[part as usize].as_ref().is_some_and(|node| node.locate(&yaml::path_from_str(field)).is_some())
    }

    /// `field` of `part` is wrong. Said only once of a field: what could not be decoded is not checked again.
    pub fn problem(&mut self, part: Part, field: &str, message: impl Into<String>) {
        if let Some(problem) = self.about(part, field, message.into()) {
            self.problems.push(problem);
        }
    }

    /// `field` of `part` is doubtful.
    pub fn warn(&mut self, part: Part, field: &str, message: impl Into<String>) {
        if let Some(problem) = self.about(part, field, message.into()) {
            self.warnings.push(problem);
        }
    }

    /// Takes the value, or says what is wrong with it.
    pub fn check<T>(&mut self, part: Part, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(part, field, message)).ok()
    }

    /// Something that is not about a field of a document.
    pub fn problem_at(&mut self, at: Option<Position>, field: &str, message: impl Into<String>) {
        let problem = self.at(at, field, &message.into());
        self.problems.push(problem);
    }

    /// As [`Self::problem_at`], for a warning.
    pub fn warn_at(&mut self, at: Option<Position>, field: &str, message: impl Into<String>) {
        let warning = self.at(at, field, &message.into());
        self.warnings.push(warning);
    }

    /// A fault of syntax.
    pub fn syntax(&mut self, error: &YamlError) {
        let at = Position { line: error.line, column: error.column };
        self.problem_at(Some(at), &error.path, error.problem.clone());
    }

    /// A fault of decoding.
    pub fn fault(&mut self, fault: &DecodeError) {
        self.problem_at(fault.at, &yaml::path_to_string(&fault.path), fault.problem.to_string());
    }

    fn about(&self, part: Part, field: &str, message: String) -> Option<ConfigProblem> {
        let located = self.parts[part as usize].as_ref().map(|node| node.locate(&yaml::path_from_str(field)));
        match located {
            Some(Some(found)) if found.faulty => None,
            Some(Some(found)) => Some(self.at(Some(found.at), &yaml::path_to_string(&found.path), &message)),
            _ if self.file.is_none() => Some(self.at(None, self.flag_of(field), &message)),
            _ => Some(self.at(None, field, &message)),
        }
    }

    /// The flag that sets `field` (an index at its end does not count), or the field itself where there is none.
    fn flag_of<'a>(&self, field: &'a str) -> &'a str {
        let whole = field.split('[').next().unwrap_or(field);
        self.flags.iter().find(|(of, _)| *of == whole).map_or(field, |(_, flag)| flag)
    }

    fn at(&self, at: Option<Position>, field: &str, message: &str) -> ConfigProblem {
        ConfigProblem { place: self.place(at), field: field.into(), message: yaml::shorten(message) }
    }

    fn place(&self, at: Option<Position>) -> Option<Place> {
        let (file, at) = (self.file.clone()?, at?);
        Some(Place { file, line: at.line, column: at.column })
    }

    /// Makes problems of the warnings that end in `note`, without it.
    pub fn harden(&mut self, note: &str) {
        let (hard, soft): (Vec<_>, Vec<_>) =
            self.warnings.drain(..).partition(|warning| warning.message.ends_with(note));
        self.warnings = soft;
        for mut problem in hard {
            problem.message.truncate(problem.message.len() - note.len());
            self.problems.push(problem);
        }
    }

    /// Forgets the warnings that say `words`.
    pub fn silence(&mut self, words: &str) {
        self.warnings.retain(|warning| warning.message != words);
    }

    /// Whether anything is wrong so far.
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// All problems in the order of the file, then all warnings.
    pub fn finish(mut self) -> (Vec<ConfigProblem>, Vec<String>) {
        let order = |problem: &ConfigProblem| problem.place.as_ref().map_or((usize::MAX, 0), |at| (at.line, at.column));
        self.problems.sort_by_key(order);
        self.problems.dedup();
        self.warnings.sort_by_key(order);
        self.warnings.dedup();
        (self.problems, self.warnings.iter().map(ToString::to_string).collect())
    }
}
