//! admin-api.
