//! SQL against a table in memory that follows the reference semantics of `Tables`.

mod budgets;
mod joins;
mod memory;
mod outputs;
mod pushdown;
mod signals;
mod slt;
