//! Batch keys: how a batch that is sent again is recognised.

use trine_model::TenantId;
use trine_schema::Signal;
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

/// Identity of a batch, 128 bits. The store mixes tenant and signal in: senders number the batches of
/// each signal from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchKey(pub u128);

/// Keeps keys from headers and keys from content apart.
const HEADER_SEED: u64 = 1;

impl BatchKey {
    /// From the sender's idempotency key.
    pub fn from_header(text: &str) -> Self {
        Self(xxh3_128_with_seed(text.as_bytes(), HEADER_SEED))
    }

    /// From the request's body (about 0.1 ms per MB).
    pub fn from_content(tenant: &TenantId, bytes: &[u8]) -> Self {
        let mut hasher = Xxh3::with_seed(HEADER_SEED + 1);
        hasher.update(tenant.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(bytes);
        Self(hasher.digest128())
    }

    /// The key under which the store remembers it.
    pub(crate) fn of_table(self, tenant: &TenantId, signal: Signal) -> u128 {
        let mut hasher = Xxh3::new();
        hasher.update(&[signal as u8]);
        hasher.update(&self.0.to_le_bytes());
        hasher.update(tenant.as_str().as_bytes());
        hasher.digest128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_tenants_and_origins_apart() {
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        assert_eq!(BatchKey::from_content(&a, b"x"), BatchKey::from_content(&a, b"x"));
        assert_ne!(BatchKey::from_content(&a, b"x"), BatchKey::from_content(&b, b"x"));
        let key = BatchKey::from_header("x");
        assert_ne!(key.of_table(&a, Signal::Logs), key.of_table(&b, Signal::Logs));
        assert_ne!(key.of_table(&a, Signal::Logs), key.of_table(&a, Signal::Spans));
        assert_ne!(key, BatchKey::from_content(&a, b"x"));
    }
}
