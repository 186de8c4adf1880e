//! Whole configurations in, specs or messages out.

mod bad;
mod flags;
mod good;
mod join;
mod print;
mod tables;
