//! One file per command: clap types and a thin handler, no logic.
