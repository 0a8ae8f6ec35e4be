//! Answers of a query.

use std::{fmt, sync::Arc};

use crate::{format::float, histogram::Histogram, labels::Labels};

/// A sample's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => f.write_str(&float(*value)),
            Self::Histogram(histogram) => histogram.fmt(f),
        }
    }
}

/// A series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Its labels.
    pub labels: Labels,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its value.
    pub sample: Sample,
}

/// A series of a matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// Times (milliseconds since 1970) and numbers.
    pub floats: Vec<(i64, f64)>,
    /// Times and histograms.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

/// What a query yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number at a time, milliseconds since 1970.
    Scalar(i64, f64),
    /// A string at a time.
    String(i64, String),
    /// One sample of each series; ordered if the query sorts, else in no order that means anything.
    Vector(Vec<VectorSample>),
    /// Samples over time, sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

impl Value {
    /// The type's name in Prometheus' answers.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Scalar(..) => "scalar",
            Self::String(..) => "string",
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
        }
    }
}

/// A time as Prometheus prints it: seconds.
struct Seconds(i64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, millis) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:03}", millis / 1000, millis % 1000)
    }
}

impl fmt::Display for Value {
    /// One series or sample a line: `{a="b"} => 1 @[12.000]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(time, value) => write!(f, "scalar: {} @[{}]", float(*value), Seconds(*time)),
            Self::String(_, text) => f.write_str(text),
            Self::Vector(vector) => {
                for (position, series) in vector.iter().enumerate() {
                    let newline = if position > 0 { "\n" } else { "" };
                    let (labels, time) = (&series.labels, Seconds(series.timestamp));
                    write!(f, "{newline}{labels} => {} @[{time}]", series.sample)?;
                }
                Ok(())
            }
            Self::Matrix(matrix) => {
                for (position, series) in matrix.iter().enumerate() {
                    let newline = if position > 0 { "\n" } else { "" };
                    write!(f, "{newline}{} =>", series.labels)?;
                    for (time, value) in &series.floats {
                        write!(f, "\n{} @[{}]", float(*value), Seconds(*time))?;
                    }
                    for (time, histogram) in &series.histograms {
                        write!(f, "\n{histogram} @[{}]", Seconds(*time))?;
                    }
                }
                Ok(())
            }
        }
    }
}
