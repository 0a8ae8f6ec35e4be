//! Scraping as a whole: configurations, and targets over a simulated time and over HTTP.

mod config;
mod http;
mod loops;
mod rows;
