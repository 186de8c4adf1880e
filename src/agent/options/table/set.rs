//! From a flag or a field into the options by a row of the table, and out of them again.

use std::time::Duration;

use serde_json::{Value, json};

use super::print;
use super::row::{OptionRow, Setting};
use crate::agent::options::agent_options::AgentOptions;
use crate::agent::options::error::{OptionsError, wrong};
use crate::agent::options::flag_value::Given;
use crate::agent::options::values;
use crate::config::GoDuration;
use crate::yaml::{DecodeError, Node, Problem};

impl Setting {
    /// Whether it is resolved together with other options, in `follow`.
    pub fn is_joint(&self) -> bool {
        matches!(self, Self::Path(..) | Self::Joint(..))
    }

    /// Sets what the flag says, which has been read. `flag` is how messages name it.
    ///
    /// # Errors
    /// A value that the option cannot have.
    pub fn by_flag(&self, options: &mut AgentOptions, flag: &str, given: &Given) -> Result<(), OptionsError> {
        match (self, given) {
            (Self::Duration(of, least), Given::Text(text)) => {
                let found = text.parse::<GoDuration>().map_err(|error| error.to_string());
                let found = found.and_then(|found| values::duration_from(found, *least));
                set(of(options), found.map_err(|problem| wrong(flag, text, problem))?);
                Ok(())
            }
            (Self::Bool(of), Given::Bool(on)) => {
                *of(options) = *on;
                Ok(())
            }
            (Self::Number(set, _), Given::Number(number)) => {
                set(options, *number).map_err(|problem| wrong(flag, &number.to_string(), problem))
            }
            (Self::Text(set, _), Given::Text(text)) => set(options, text).map_err(|problem| wrong(flag, text, problem)),
            (Self::Texts(of, check), Given::List(texts)) if !texts.is_empty() => {
                let one = |text: &String| check(text).map_err(|problem| wrong(flag, text, problem));
                *of(options) = texts.iter().map(one).collect::<Result<_, _>>()?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Sets what the field says.
    ///
    /// # Errors
    /// Every fault of it, with paths that begin below the field.
    pub fn by_field(&self, options: &mut AgentOptions, node: &mut Node) -> Result<(), Vec<DecodeError>> {
        let at = node.at;
        let invalid =
            |problem: String| vec![DecodeError { problem: Problem::Invalid(problem), path: vec![], at: Some(at) }];
        match self {
            Self::Duration(of, least) => {
                let found = node.decode::<GoDuration>().map_err(|fault| vec![fault])?;
                set(of(options), values::duration_from(found, *least).map_err(invalid)?);
            }
            Self::Bool(of) => *of(options) = node.decode().map_err(|fault| vec![fault])?,
            Self::Number(set, _) => {
                let number = node.decode().map_err(|fault| vec![fault])?;
                set(options, number).map_err(invalid)?;
            }
            Self::Text(set, _) => {
                let text: String = node.decode().map_err(|fault| vec![fault])?;
                if !text.is_empty() {
                    set(options, &text).map_err(invalid)?;
                }
            }
            Self::Texts(of, check) => {
                let (texts, faults) = node.decode_all::<Vec<String>>();
                if !faults.is_empty() {
                    return Err(faults);
                }
                let one = |text: &String| check(text).map_err(|problem| invalid(format!("{text:?}: {problem}")));
                *of(options) = texts.iter().map(one).collect::<Result<_, _>>()?;
            }
            Self::Path(..) | Self::Joint(..) => {}
        }
        Ok(())
    }

    /// What `/configz` says of it; null where there is nothing to say.
    pub fn shown(&self, options: &mut AgentOptions) -> Value {
        match self {
            Self::Duration(of, _) => print::duration(*of(options)),
            Self::Bool(of) => json!(*of(options)),
            Self::Texts(of, _) => print::some(of(options)),
            Self::Number(_, shown) | Self::Text(_, shown) | Self::Path(_, shown) | Self::Joint(_, shown) => {
                shown(options)
            }
        }
    }
}

impl OptionRow {
    /// What `/configz` says of it; null where it leaves it to what is written, or to the default.
    pub fn shown(&self, options: &mut AgentOptions) -> Value {
        let shown = self.setting().map(|setting| setting.shown(options)).unwrap_or_default();
        let left_out = self.field.is_some_and(|field| field.default == "null") && shown == Value::Bool(false);
        if left_out { Value::Null } else { shown }
    }
}

fn set(option: &mut Duration, value: Option<Duration>) {
    *option = value.unwrap_or(*option);
}
