//! The store's public face.

use std::{path::Path, sync::Arc};

use trine_model::TenantId;
use trine_schema::{LogBatch, StreamRegistry};

use crate::{BatchKey, StoreConfig, StoreError, StoreStatus, VerifyReport};

/// What became of an append. Either way the batch is durable and visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored now.
    Stored {
        /// Its rows.
        rows: usize,
    },
    /// Known by its key: stored before.
    Duplicate,
}

/// An open store.
pub struct Store {
    config: StoreConfig,
    registry: Arc<StreamRegistry>,
}

impl Store {
    /// Opens the directory: takes its lock, replays the log, sweeps orphans, starts the background
    /// threads.
    pub fn open(config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Self { config, registry: Arc::default() }))
    }

    /// The settings.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// The registry behind the `stream` column; decoders intern into it.
    pub fn registry(&self) -> &Arc<StreamRegistry> {
        &self.registry
    }

    /// The key for a request: of its idempotency header when it has one, else of its body when
    /// `dedup_by_content` is on.
    pub fn batch_key(&self, header: Option<&str>, tenant: &TenantId, body: &[u8]) -> Option<BatchKey> {
        match header {
            Some(header) => Some(BatchKey::from_header(header)),
            None => self.config.dedup_by_content.then(|| BatchKey::from_content(tenant, body)),
        }
    }

    /// Stores a batch. Returns once it is durable and visible to every scan that starts after.
    /// Dropping the future may or may not store it.
    pub async fn append(&self, _batch: LogBatch, _key: Option<BatchKey>) -> Result<Appended, StoreError> {
        todo!()
    }

    /// Writes everything in memory to segments.
    pub async fn flush(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Merges segments until they have their final shape, and applies retention.
    pub async fn compact(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Reads and checks every segment and the log; what fails is quarantined.
    pub async fn verify(&self) -> VerifyReport {
        todo!()
    }

    /// The store at this moment.
    pub fn status(&self) -> StoreStatus {
        todo!()
    }

    /// Stops taking data, finishes what is queued, stops the threads and lets go of the directory.
    pub async fn close(&self) {
        todo!()
    }
}

/// Checks a data directory that no store has open; changes nothing.
pub fn verify_directory(_dir: &Path) -> Result<VerifyReport, StoreError> {
    todo!()
}
