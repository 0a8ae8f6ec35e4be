//! The memory of one query, counted until the last of its operators has let go of it.

use std::{any::Any, fmt, sync::Arc};

use datafusion::{
    common::Result,
    execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation},
};

/// Whatever allows a query to run. Operators that nobody waits for any more go on until they yield;
/// their reservations hold the pool, and the pool holds this.
pub type Permit = Arc<dyn Any + Send + Sync>;

/// A pool with a bound that keeps a permit as long as anyone holds memory of it.
pub(crate) struct QueryMemory {
    pool: GreedyMemoryPool,
    _permit: Option<Permit>,
}

impl QueryMemory {
    pub(crate) fn new(bytes: usize, permit: Option<Permit>) -> Self {
        Self { pool: GreedyMemoryPool::new(bytes), _permit: permit }
    }
}

impl fmt::Debug for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.pool, f)
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &'static str {
        "QueryMemory"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.pool.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.pool.memory_limit()
    }
}
