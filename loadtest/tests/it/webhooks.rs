//! Webhooks as a merchant meets them: he makes, changes and repairs his endpoints through the API alone, while
//! payments come in and parts of the bank are killed.

pub(crate) mod api;
mod completeness;
mod rotation;
mod sections;
