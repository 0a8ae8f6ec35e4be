//! Measuring a running server from outside: send a load, settle, ask, watch lines become visible.
//!
//! | step | what is read |
//! |---|---|
//! | send at full speed | lines/s, CPU seconds and memory of the server from `/proc`, bytes on disk |
//! | settle: flush and compaction | CPU seconds again, bytes on disk per raw byte |
//! | ask each question in turn, many rounds | median and p95, each answer compared with the truth |
//! | steady load at half the highest rate | push → visible p50 and p99, new streams included |

pub mod join;
pub mod kind;
pub mod load;
pub mod process;
pub mod questions;
pub mod report;
pub mod run;
pub mod send;
pub mod signal;
pub mod visible;
