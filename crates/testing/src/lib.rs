//! What tests use to break things on purpose, repeatably: a random source with a seed and a
//! simulated disk that loses power, with the feature `objects` also an object store on the same power; and a
//! real Prometheus to compare with.
//! Only ever a dev-dependency.

mod disk;
#[cfg(feature = "objects")]
mod objects;
mod prometheus;
mod random;

pub use disk::SimDisk;
#[cfg(feature = "objects")]
pub use objects::SimObjects;
pub use prometheus::Prometheus;
pub use random::Random;
