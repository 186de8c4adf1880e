//! Phases as data: one tree a command, which running, `phase NAME`, `--skip-phases`, help and dry runs all walk.

use std::collections::BTreeSet;

use crate::event::{Event, Reporter};

/// One phase, or a group of them. `W` says what it does, in the command's own terms.
#[derive(Debug, Clone)]
pub struct Phase<W> {
    /// kubeadm's name.
    pub name: &'static str,
    /// Other names kubeadm takes for it.
    pub aliases: &'static [&'static str],
    /// What it does, in a few words, for progress and lists.
    pub title: &'static str,
    /// The phases of a group, in order; a group's work is done for those of them that are selected.
    pub children: Vec<Child>,
    /// What it does.
    pub work: W,
}

/// A phase of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// kubeadm's name, without the group's in front.
    pub name: &'static str,
    /// What it does, in a few words.
    pub title: &'static str,
}

/// What `phase NAME` takes and how its help explains it.
#[derive(Debug, Clone, Copy)]
pub struct PhaseOptions {
    /// A phase, or `group/child`.
    pub name: &'static str,
    /// The flags it takes, without dashes, with blanks between.
    pub flags: &'static str,
    /// A paragraph.
    pub help: &'static str,
}

/// The row of a phase, or of a group's phase, which has its group's where it has none of its own.
pub fn options_of<'a>(rows: &'a [PhaseOptions], name: &str, child: Option<&str>) -> Option<&'a PhaseOptions> {
    let own = child.and_then(|child| rows.iter().find(|row| row.name.split_once('/') == Some((name, child))));
    own.or_else(|| rows.iter().find(|row| row.name == name))
}

/// A phase that is to run, with those of its children that are.
#[derive(Debug, Clone)]
pub struct Selected<'a, W> {
    /// The phase.
    pub phase: &'a Phase<W>,
    /// Names of the selected children; empty for a phase that has none.
    pub children: Vec<&'static str>,
}

impl<W> Selected<'_, W> {
    /// Whether every child is selected.
    pub fn is_whole(&self) -> bool {
        self.children.len() == self.phase.children.len()
    }
}

/// A name that no phase has, or that cannot be run as it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhaseError {
    /// No such phase.
    #[error("invalid phase name: {name}; valid ones are {}", valid.join(", "))]
    Unknown {
        /// What was given.
        name: String,
        /// Every name there is.
        valid: Vec<String>,
    },
    /// A group was named where one of its phases is needed.
    #[error("phase {name} is a group: name one of its phases: all, {}", children.join(", "))]
    IsGroup {
        /// The group.
        name: &'static str,
        /// Its phases.
        children: Vec<&'static str>,
    },
    /// A phase that kubeadm has and this version has not.
    #[error("phase {name} is one of kubeadm's that this version of kubeboot does not have")]
    NotBuilt {
        /// What was given.
        name: String,
    },
}

/// The phases of a command.
#[derive(Debug, Clone)]
pub struct Phases<W> {
    /// The phases, in the order in which they run.
    pub list: Vec<Phase<W>>,
    /// Names (aliases and `group/child` too) of kubeadm's phases that are not in the list: they may be skipped.
    pub not_built: &'static [&'static str],
}

/// Which phases a command is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhaseSelection {
    /// Every phase that is not skipped.
    Everything,
    /// One phase, or one of a group, or `all` of a group: `phase NAME [SUB]`.
    Phase(String, Option<String>),
}

impl PhaseSelection {
    /// The words of `command` with this selection: `init`, `init phase certs`.
    pub fn command(&self, command: &str) -> String {
        match self {
            Self::Everything => command.to_owned(),
            Self::Phase(name, _) => format!("{command} phase {name}"),
        }
    }

    /// Those of `phases` that are to run, without those in `skip`; what is left out is reported.
    ///
    /// # Errors
    /// A phase that is none.
    pub fn of<'a, W>(
        &self,
        phases: &'a Phases<W>,
        skip: &[String],
        reporter: Option<&dyn Reporter>,
    ) -> Result<Vec<Selected<'a, W>>, PhaseError> {
        let Self::Phase(name, sub) = self else {
            let Selection { run, skipped, not_built } = phases.select(skip)?;
            let out = skipped.into_iter().map(|phase| (phase, "--skip-phases"));
            let out =
                out.chain(not_built.into_iter().map(|phase| (phase, "this version of kubeboot does not have it")));
            for (phase, reason) in out {
                if let Some(reporter) = reporter {
                    reporter.event(Event::PhaseSkipped { phase, reason: reason.to_owned() });
                }
            }
            return Ok(run);
        };
        Ok(vec![phases.one(name, sub.as_deref())?])
    }
}

/// What [`Phases::select`] found.
#[derive(Debug)]
pub struct Selection<'a, W> {
    /// What is to run, in order.
    pub run: Vec<Selected<'a, W>>,
    /// Names of whole phases and `group/child` that are left out.
    pub skipped: Vec<String>,
    /// What was to be skipped and is not there anyway.
    pub not_built: Vec<String>,
}

impl<W> Phases<W> {
    /// Every phase but those in `skip`, by kubeadm's rules: a group takes its phases with it.
    pub fn select(&self, skip: &[String]) -> Result<Selection<'_, W>, PhaseError> {
        let mut leave_out = BTreeSet::new();
        let mut not_built = Vec::new();
        for name in skip {
            match self.resolve(name) {
                Ok((phase, child)) => drop(leave_out.insert((phase.name, child))),
                Err(PhaseError::NotBuilt { name }) => not_built.push(name),
                Err(error) => return Err(error),
            }
        }
        let mut selection = Selection { run: Vec::new(), skipped: Vec::new(), not_built };
        for phase in &self.list {
            let is_out = |child: &Child| leave_out.contains(&(phase.name, Some(child.name)));
            let children: Vec<_> = phase.children.iter().filter(|c| !is_out(c)).map(|c| c.name).collect();
            let none_left = children.is_empty() && !phase.children.is_empty();
            if none_left || leave_out.contains(&(phase.name, None)) {
                selection.skipped.push(phase.name.to_owned());
                continue;
            }
            let out = phase.children.iter().filter(|c| is_out(c));
            selection.skipped.extend(out.map(|child| format!("{}/{}", phase.name, child.name)));
            selection.run.push(Selected { phase, children });
        }
        Ok(selection)
    }

    /// The one phase that `phase NAME [SUB]` names; `all` is every phase of a group.
    pub fn one(&self, name: &str, sub: Option<&str>) -> Result<Selected<'_, W>, PhaseError> {
        let full = sub.filter(|sub| *sub != "all").map_or_else(|| name.to_owned(), |sub| format!("{name}/{sub}"));
        let (phase, child) = self.resolve(&full)?;
        let all = || phase.children.iter().map(|child| child.name).collect();
        let children = match (child, sub) {
            (Some(child), _) => vec![child],
            (None, Some(_)) if !phase.children.is_empty() => all(),
            (None, None) if phase.children.is_empty() => vec![],
            (None, None) => return Err(PhaseError::IsGroup { name: phase.name, children: all() }),
            (None, Some(_)) => return Err(self.unknown(&format!("{name}/all"))),
        };
        Ok(Selected { phase, children })
    }

    /// Every name that may be given: phases, then `group/child`.
    pub fn names(&self) -> Vec<String> {
        self.list
            .iter()
            .flat_map(|phase| {
                let children = phase.children.iter().map(|child| format!("{}/{}", phase.name, child.name));
                std::iter::once(phase.name.to_owned()).chain(children)
            })
            .collect()
    }

    /// A table of the phases for help texts.
    pub fn help(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, title: &str| text.push_str(&format!("  {name:<30} {title}\n"));
        for phase in &self.list {
            line(phase.name, phase.title);
            phase.children.iter().for_each(|child| line(&format!("  {}", child.name), child.title));
        }
        text
    }

    fn resolve(&self, name: &str) -> Result<(&Phase<W>, Option<&'static str>), PhaseError> {
        let (group, child) = name.split_once('/').map_or((name, None), |(group, child)| (group, Some(child)));
        let found = self.list.iter().find(|phase| phase.name == group || phase.aliases.contains(&group));
        match (found, child) {
            (Some(phase), None) => Ok((phase, None)),
            (Some(phase), Some(child)) => match phase.children.iter().find(|known| known.name == child) {
                Some(known) => Ok((phase, Some(known.name))),
                None => Err(self.unknown(name)),
            },
            (None, _) if self.not_built.contains(&name) => Err(PhaseError::NotBuilt { name: name.to_owned() }),
            (None, _) => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &str) -> PhaseError {
        PhaseError::Unknown { name: name.to_owned(), valid: self.names() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases() -> Phases<()> {
        let child = |name| Child { name, title: "" };
        let phase = |name, children: &[&'static str]| Phase {
            name,
            aliases: if name == "wait" { &["wait-alias"] } else { &[] },
            title: "",
            children: children.iter().map(|name| child(name)).collect(),
            work: (),
        };
        Phases { list: vec![phase("certs", &["ca", "sa"]), phase("wait", &[])], not_built: &["addon", "addon/coredns"] }
    }

    fn run_of(skip: &[&str]) -> Result<Vec<String>, PhaseError> {
        let skip: Vec<String> = skip.iter().map(|name| (*name).to_owned()).collect();
        let phases = phases();
        let run = phases.select(&skip)?.run;
        Ok(run.iter().map(|s| format!("{}{:?}", s.phase.name, s.children)).collect())
    }

    #[test]
    fn skipping_a_group_skips_its_phases_and_skipping_a_phase_leaves_its_group() {
        assert_eq!(run_of(&[]).unwrap(), [r#"certs["ca", "sa"]"#, "wait[]"]);
        assert_eq!(run_of(&["certs"]).unwrap(), ["wait[]"]);
        assert_eq!(run_of(&["certs/ca", "wait-alias"]).unwrap(), [r#"certs["sa"]"#]);
        assert_eq!(run_of(&["certs/ca", "certs/sa"]).unwrap(), ["wait[]"]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_every_valid_one_and_one_of_kubeadms_is_noted() {
        let error = run_of(&["certs/nope"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid phase name: certs/nope; valid ones are certs, certs/ca, certs/sa, wait");
        let (phases, skip) = (phases(), ["addon/coredns".to_owned()]);
        let selection = phases.select(&skip).unwrap();
        assert_eq!(selection.not_built, ["addon/coredns"]);
        assert_eq!(selection.run.len(), 2);
    }

    #[test]
    fn one_phase_is_named_alone_or_in_its_group_or_as_all_of_it() {
        let phases = phases();
        assert_eq!(phases.one("certs", Some("sa")).unwrap().children, ["sa"]);
        assert!(phases.one("certs", Some("all")).unwrap().is_whole());
        assert!(phases.one("wait", None).unwrap().children.is_empty());
        assert!(matches!(phases.one("certs", None), Err(PhaseError::IsGroup { .. })));
        assert!(matches!(phases.one("wait", Some("all")), Err(PhaseError::Unknown { .. })));
        assert!(matches!(phases.one("addon", None), Err(PhaseError::NotBuilt { .. })));
    }
}
