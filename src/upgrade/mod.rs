//! plan, diff, apply, rollback.
