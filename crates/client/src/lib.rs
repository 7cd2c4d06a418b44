//! The partner's side of the bank in Rust: signs requests, posts payments, waits for outcomes, verifies webhooks.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Client, PaymentRequest};
//! use domain::money::{Amount, Currency};
//!
//! let bank = Client::new("https://bank.example", "key_…", "base64 of the secret")?;
//! let request = PaymentRequest::new("mdt_…".parse()?, Amount::parse("12.50", Currency::EUR)?);
//! let payment = bank.pay(&request, "order-4711", None).await?.payment;
//! println!("{} is {}", payment.id, payment.status);
//! # Ok(()) }
//! ```
//!
//! Every request is signed as RFC 9421 describes and every writing one carries an idempotency key, so a retry has
//! no second effect; that is why this client may and does retry (see [`Retries`]). It keeps connections alive,
//! follows no redirect and uses no proxy: a signature must never travel to another host than the bank.
//!
//! Not done here: nothing is stored, and an idempotency key is the caller's to choose and to remember.

mod client;
mod error;
mod money;
mod payment;
mod retries;
mod webhooks;

pub use client::{Answer, Client, Options, SendOptions, http_client};
pub use domain::webhook;
pub use error::{ConfigError, Error, FieldError, Problem};
pub use money::{
    BatchItem, Mandate, MandateRequest, Page, PartRequest, PaymentFilter, SandboxMandate, StatementEntry,
    StatementFilter, TransferRequest,
};
pub use payment::{Accepted, PaymentRequest};
pub use retries::Retries;
pub use webhooks::{
    Endpoint, EndpointRequest, EventPage, LoggedEvent, NewSecret, Ping, Replay, ReplayRequest,
};
