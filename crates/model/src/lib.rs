//! The words every crate shares: tenant, severity, trace and span ids.
//!
//! Standard library only, so that the smallest program of the family can use it.

mod ids;
mod severity;
mod tenant;

pub use ids::{IdError, SpanId, TraceId};
pub use severity::{Level, Severity};
pub use tenant::{DEFAULT_TENANT, TenantError, TenantId};
