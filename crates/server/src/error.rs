//! What a caller is told when a request fails outside the protocols that have their own error form.

use axum::{
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use trine_schema::ScanError;
use trine_store::StoreError;

/// Status and a message that says what to do; sent as plain text, as Loki does.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u32>,
}

/// Wait that is advised while the disk is full, in seconds.
const RETRY_FULL_S: u32 = 5;

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.message + "\n").into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Full { .. }
            | StoreError::Unflushed { .. }
            | StoreError::Poisoned { .. }
            | StoreError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            StoreError::BadBatch { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let retry_after =
            matches!(error, StoreError::Full { .. } | StoreError::Unflushed { .. }).then_some(RETRY_FULL_S);
        Self { status, message: error.to_string(), retry_after }
    }
}

impl From<ScanError> for ApiError {
    fn from(error: ScanError) -> Self {
        let status = match &error {
            ScanError::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            ScanError::Memory { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ScanError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
