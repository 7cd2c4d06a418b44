//! processor.
