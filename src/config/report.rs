//! Collects what is wrong, and finds for each field the place where it was written.

use std::path::PathBuf;

use super::error::{ConfigProblem, Place};
use super::flags;
use crate::yaml::{self, DecodeError, Node, Position, YamlError};

/// A document whose fields have meaning to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `InitConfiguration`.
    Init,
    /// `ClusterConfiguration`.
    Cluster,
    /// `KubebootConfiguration`.
    Kubeboot,
}

/// Everything found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The file; None when there are flags only.
    file: Option<PathBuf>,
    /// The documents of the file, by [`Part`].
    parts: [Option<Node>; 3],
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

impl Report {
    /// An empty report on `file`.
    pub fn of(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Keeps the document that fields of `part` are looked up in.
    pub fn keep(&mut self, part: Part, node: Node) {
        self.parts[part as usize] = Some(node);
    }

    /// The document of `part`, if the file has one.
    pub fn part_mut(&mut self, part: Part) -> &mut Option<Node> {
        &mut self.parts[part as usize]
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
            _ if self.file.is_none() => Some(self.at(None, flags::name_of(field), &message)),
            _ => Some(self.at(None, field, &message)),
        }
    }

    fn at(&self, at: Option<Position>, field: &str, message: &str) -> ConfigProblem {
        ConfigProblem { place: self.place(at), field: field.into(), message: yaml::shorten(message) }
    }

    fn place(&self, at: Option<Position>) -> Option<Place> {
        let (file, at) = (self.file.clone()?, at?);
        Some(Place { file, line: at.line, column: at.column })
    }

    /// All problems in the order of the file, then all warnings.
    pub fn finish(mut self) -> (Vec<ConfigProblem>, Vec<String>) {
        let order = |problem: &ConfigProblem| problem.place.as_ref().map_or((usize::MAX, 0), |at| (at.line, at.column));
        self.problems.sort_by_key(order);
        self.problems.dedup();
        self.warnings.sort_by_key(order);
        (self.problems, self.warnings.iter().map(ToString::to_string).collect())
    }
}
