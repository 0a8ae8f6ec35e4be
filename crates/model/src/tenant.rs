//! Whose data it is.

use std::{fmt, sync::Arc};

/// The tenant of a request without `X-Scope-OrgID`.
pub const DEFAULT_TENANT: &str = "default";

/// Longest tenant id, in bytes (the bound Loki and Mimir use).
const MAX_TENANT_BYTES: usize = 150;

/// A valid tenant id: 1 to 150 of letters, digits and `!-_.*'()`, not `.` or `..`
/// (Loki's and Mimir's rule for `X-Scope-OrgID`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The text is no tenant id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantError(String);

impl fmt::Display for TenantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tenant id {:?} is not valid; use 1 to {MAX_TENANT_BYTES} letters, digits or !-_.*'() in X-Scope-OrgID",
            self.0
        )
    }
}

impl std::error::Error for TenantError {}

impl TenantId {
    /// Checks and takes a tenant id.
    pub fn new(text: &str) -> Result<Self, TenantError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
        let valid = !text.is_empty()
            && text.len() <= MAX_TENANT_BYTES
            && text.bytes().all(allowed)
            && !matches!(text, "." | "..");
        if valid { Ok(Self(text.into())) } else { Err(TenantError(text.chars().take(200).collect())) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self(DEFAULT_TENANT.into())
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lokis_rule_for_tenant_ids() {
        for good in ["default", "team-a", "a.b_c(1)!*'"] {
            assert!(TenantId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(151)] {
            assert!(TenantId::new(bad).is_err(), "{bad}");
        }
    }
}
