//! One view of everything that was done: commands of partners and of the bank (their rows of `payments` and `changes`),
//! what people did (`audit_log`), and the calls of both APIs (`api_calls`), newest first.
//!
//! `plan` chooses the indexes that serve a filter; each is a *stream*, read by its key in pages, and [`Merge`] takes
//! the newest row of all of them, one after the other. What no index serves is filtered while reading, and a page looks at
//! a bounded number of rows, however few of them fit: then it is short and says where to go on. So nothing is ever
//! scanned, whatever is asked for.
//!
//! **Order:** commands by the broker's time in their partition, calls by their place in the topic, people by the ids of
//! rows. Streams are merged by time, so rows of different streams that are milliseconds apart may change places. A row
//! that is committed late, with a time before what was read already, is found by asking anew.

pub mod export;
mod filter;
mod item;
mod merge;
mod plan;
mod store;

pub use filter::{Actor, Filter, Query, Target};
pub use item::{Item, Outcome, Source};
pub use merge::{Merge, ROWS_MAX};
