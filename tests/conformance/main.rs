//! What a kubelet does with static pods, behaviour by behaviour, against the real agent on a real Docker daemon, or
//! on the containerd whose socket `KUBEBOOT_TEST_CRI` names. See TABLE.md, which is made from table/rows.rs:
//!
//!     cargo test --features testing --test conformance               # all of it
//!     cargo test --features testing --test conformance -- b037       # one behaviour
//!     UPDATE_TABLE=1 cargo test --features testing --test conformance -- table
//!
//! The harness is the table's: every test is named by a row, and a test that no row names does not compile without a
//! warning.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod api;
mod defaults;
mod devices;
mod ends;
mod fields;
mod files;
mod history;
mod lifecycle;
mod measures;
mod node;
mod pods_api;
mod probes;
mod reports;
mod restarts;
mod serve;
mod signals;
mod table;
mod telling;
mod url;
mod volumes;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use node::Node;
use table::{ROWS, Test};

/// How many tests run at a time: nearly all of their time is waiting.
const THREADS: usize = 6;
/// No test takes longer, whatever it waits for.
const LIMIT: Duration = Duration::from_secs(180);
/// Lines of the agent's log shown with a failure.
const LOG_LINES: usize = 40;

thread_local! {
    /// What the panic of this thread's test said, and where.
    static PANIC: Cell<String> = const { Cell::new(String::new()) };
}

fn main() -> ExitCode {
    // Told with the failures, not in the midst of other tests.
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let mut tests: Vec<Test> = ROWS.iter().filter_map(|row| row.test).collect();
    // What takes longest begins first.
    tests.sort_by_key(|test| std::cmp::Reverse(test.seconds));
    let mut trials = vec![
        Trial::test("table_has_every_number_once_and_names_tests_that_exist", || Ok(table::check_numbers()?)),
        Trial::test("table_in_the_repository_is_the_one_in_the_code", || Ok(table::check_file()?)),
    ];
    trials.extend(tests.into_iter().map(|test| Trial::test(test.name, move || run(test))));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs one test on a node of its own.
fn run(test: Test) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let entered = runtime.enter();
    let mut node = Node::new();
    let body = || runtime.block_on(async { tokio::time::timeout(LIMIT, (test.body)(&mut node)).await });
    let ended = catch_unwind(AssertUnwindSafe(body));
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(format!("not done after {} s", LIMIT.as_secs())),
        Err(_) => Some(PANIC.take()),
    };
    let log = node.log();
    drop(node);
    drop(entered);
    let Some(failure) = failure else { return Ok(()) };
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    Err(format!("{failure}\nthe agent's log ends:\n{tail}").into())
}
