//! The fault harness: a bank under load, broken on purpose, and compared afterwards with what outsiders saw.

pub mod audit;
pub mod bank;
pub mod chaos;
pub mod cli;
pub mod endpoints;
pub mod killed_anywhere;
pub mod store;

use domain::money::Currency;

use crate::driver;
use crate::sink::Sink;
use crate::system::System;

/// A partner of the system as the driver wants it, posting to all ingests in turn.
pub fn driver_partners(system: &System) -> Vec<driver::Partner> {
    let partner = |partner: &crate::system::Partner| driver::Partner {
        id: Some(partner.id),
        urls: system.urls(),
        key_id: partner.key_id.clone(),
        secret: partner.key_secret.clone(),
        mandates: partner.mandates.clone(),
        currency: Currency::EUR,
    };
    system.partners().iter().map(partner).collect()
}

/// A sink that receives for the endpoints of all partners, where `admin-api seed` said that they listen.
pub async fn sinks(system: &System) -> anyhow::Result<Sink> {
    let first = system.partners().first().ok_or_else(|| anyhow::anyhow!("the system has no partner"))?;
    let sink = Sink::start(first.webhook_listen).await?;
    for (index, partner) in system.partners().iter().enumerate() {
        sink.endpoint(&audit::webhook_path(index), &partner.webhook_secret)?;
    }
    Ok(sink)
}
