//! Scraping as a whole: configurations, and targets over a simulated time and over HTTP.

mod config;
mod http;
#[cfg(feature = "test-clock")]
mod loops;
mod rows;
#[cfg(feature = "tls")]
mod tls;
