//! Segments: Parquet files with our index inside.
