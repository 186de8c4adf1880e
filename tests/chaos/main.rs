//! Chaos: an agent with a dozen pods on a dockerd of its own, to which everything happens that happens to machines, in
//! an order that a seed decides. Now and then the harm stops, and what runs must become what is wanted; at the end every
//! manifest goes, and nothing may be left. `scripts/chaos.sh` runs it.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test, and a program")]

mod judge;
mod machine;
mod pods;
mod run;
mod script;

use std::process::ExitCode;
use std::time::Duration;

use run::Run;

/// What the command line says.
struct Args {
    seconds: u64,
    seed: u64,
}

fn args() -> Result<Args, String> {
    let mut args = Args { seconds: 50, seed: 1 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|value| value.parse().ok()).ok_or(format!("{word} needs a number"));
        match word.as_str() {
            "--seconds" => args.seconds = number()?,
            "--seed" => args.seed = number()?,
            // What cargo gives to every test program.
            "--nocapture" | "--quiet" | "-q" | "--test-threads=1" => {}
            _ => return Err(format!("unknown argument {word:?}; known are --seconds N and --seed N")),
        }
    }
    Ok(args)
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let mut run = Run::new(args.seed).await;
    let half = Duration::from_secs(args.seconds) / 2;
    run.harm(half).await;
    run.without_live_restore().await;
    run.harm(half).await;
    run.end().await;
    if run.summary() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
