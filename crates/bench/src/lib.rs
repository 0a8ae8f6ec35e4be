//! Load generator and measuring harness.
