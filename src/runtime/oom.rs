//! Which OOM score adjustments containers may have. Lowering one below the process's own needs CAP_SYS_RESOURCE in the
//! first user namespace; inside most containers it is missing, and runc then refuses to start whatever asks for it.

use std::io;
use std::sync::Once;

/// This process's adjustment. A write changes nothing that outlives the probe.
const OWN: &str = "/proc/self/oom_score_adj";

/// The lowest adjustment this machine allows, None without a limit. Asks the kernel by lowering our own by one and
/// putting it back: the capability's bit in /proc/self/status says nothing inside a user namespace.
pub fn floor() -> Option<i64> {
    let own: i64 = std::fs::read_to_string(OWN).ok()?.trim().parse().ok()?;
    if own > -1000 && write(own - 1).is_err() {
        // Containers are the daemon's children, not ours: zero is what they surely may have.
        return Some(own.max(0));
    }
    let _ = write(own);
    None
}

#[allow(clippy::disallowed_methods, reason = "a file of the kernel's cannot be written aside and renamed")]
fn write(value: i64) -> io::Result<()> {
    std::fs::write(OWN, value.to_string())
}

/// Says once a process that adjustments are not what was asked for.
fn warn_once(wanted: i64, allowed: i64) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            wanted,
            allowed,
            "this machine does not allow lower OOM score adjustments (no CAP_SYS_RESOURCE): containers run without them"
        );
    });
}

/// The adjustment a container gets that is to have `wanted`, where none may have less than `floor`.
pub fn allowed(floor: Option<i64>, wanted: i64) -> i64 {
    let allowed = floor.map_or(wanted, |floor| wanted.max(floor));
    if allowed != wanted {
        warn_once(wanted, allowed);
    }
    allowed
}
