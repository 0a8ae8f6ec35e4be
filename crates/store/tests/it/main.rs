//! The store as its users see it. Each module names what it guarantees.

mod append;
mod corruption;
mod crash;
mod damage;
mod dedup;
mod full;
mod indexes;
mod kit;
mod metrics;
mod poison;
mod records;
mod segments;
mod signals;
