//! Phases of init and reset: an ordered list of named steps, and the journal that lets a killed run go on.
