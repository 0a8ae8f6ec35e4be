//! What tests use to break things on purpose, repeatably: a random source with a seed and a
//! simulated disk that loses power. Only ever a dev-dependency.

mod disk;
mod random;

pub use disk::SimDisk;
pub use random::Random;
