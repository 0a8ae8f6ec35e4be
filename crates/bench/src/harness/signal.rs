//! The three signals, as the harness and its reports name them.

use serde::{Deserialize, Serialize};

/// What a load consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Lines
    #[default]
    Logs,
    /// Spans
    Traces,
    /// Samples of series
    Metrics,
}

impl Signal {
    /// What is counted.
    pub const fn items(self) -> &'static str {
        match self {
            Self::Logs => "lines",
            Self::Traces => "spans",
            Self::Metrics => "samples",
        }
    }
}
