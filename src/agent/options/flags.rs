//! Flags as they are read, by their rows of the table: from the command line, and by code that has to know beforehand
//! whether an agent will take some flags ([`Flags::read`]).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::{OptionsError, wrong};
use super::flag_value::{Given, Kind};
use super::given::Flags;
use super::table::{self, Meaning, OptionRow, Setting};

impl Flags {
    /// Takes in what is given of the flag of a row.
    pub fn set(&mut self, row: &OptionRow, given: Given) {
        self.given.entry(row.name()).or_default().add(row.kind, &given);
        match row.meaning {
            Meaning::Followed(Setting::Joint(set, _)) => set(self, given),
            Meaning::Followed(Setting::Path(place, _)) => *place(self) = given.text().map(PathBuf::from),
            Meaning::Followed(_) => self.keep(row, given),
            Meaning::Ignored(_) if given != Given::Nothing && !self.ignored.iter().any(|name| name == row.name()) => {
                self.ignored.push(row.name().to_owned());
            }
            Meaning::Ignored(_) | Meaning::Global => {}
        }
    }

    /// Of several the last counts, and lists add up.
    fn keep(&mut self, row: &OptionRow, given: Given) {
        match (self.followed.get_mut(row.name()), given) {
            (Some(Given::List(before)), Given::List(more)) => before.extend(more),
            (_, Given::Nothing) if row.kind == Kind::List => {}
            (_, Given::Nothing) => {
                self.followed.remove(row.name());
            }
            (_, given) => {
                self.followed.insert(row.name(), given);
            }
        }
    }

    /// Changes every path that a flag names.
    ///
    /// # Errors
    /// The first one of `change`.
    pub fn map_paths<E>(&mut self, change: impl Fn(PathBuf) -> Result<PathBuf, E>) -> Result<(), E> {
        for (_, row) in table::flags() {
            if let Some(Setting::Path(place, _)) = row.setting() {
                let place = place(self);
                *place = place.take().map(&change).transpose()?;
            }
        }
        Ok(())
    }

    /// The flags that were given with their values, as a kubelet's `/flagz` shows them: without what may be a password.
    pub fn shown(&self) -> BTreeMap<String, String> {
        self.given.iter().map(|(name, shown)| ((*name).to_owned(), shown.to_string())).collect()
    }

    /// Reads flags as the command line does, each with its name without dashes and its value.
    ///
    /// # Errors
    /// All that is wrong with them: names that no kubelet has, and values that the flag cannot have.
    pub fn read<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<OptionsError>> {
        let (mut flags, mut faults) = (Self::default(), Vec::new());
        for (name, value) in given {
            let dashed = name.replace('_', "-");
            match table::of_flag(&dashed) {
                None => faults.push(OptionsError::UnknownFlag { name: name.to_owned() }),
                Some(row) => match row.kind.read(value) {
                    Ok(given) => flags.set(row, given),
                    Err(problem) if matches!(row.kind, Kind::Headers | Kind::Secret) => {
                        faults.push(OptionsError::Hidden { setting: format!("--{dashed}"), problem });
                    }
                    Err(problem) => faults.push(wrong(&format!("--{dashed}"), value, problem)),
                },
            }
        }
        if faults.is_empty() { Ok(flags) } else { Err(faults) }
    }
}
