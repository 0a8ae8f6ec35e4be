//! SQL against a table in memory that follows the reference semantics of `Tables`.

mod budgets;
mod memory;
mod outputs;
mod pushdown;
mod slt;
