//! The tenant of a request: header `X-Scope-OrgID`, else `default`.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use trine_model::{TenantError, TenantId};

use crate::error::ApiError;

/// Header that names the tenant, as in Loki, Mimir and Tempo.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// Extracts the tenant; an invalid id is refused with 400.
pub struct Tenant(pub TenantId);

/// Tenant named by the headers.
pub fn tenant_of(headers: &HeaderMap) -> Result<TenantId, TenantError> {
    match headers.get(TENANT_HEADER) {
        None => Ok(TenantId::default()),
        Some(value) => TenantId::new(&String::from_utf8_lossy(value.as_bytes())),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        tenant_of(&parts.headers).map(Self).map_err(|error| ApiError::bad_request(error.to_string()))
    }
}
