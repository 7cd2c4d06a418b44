//! Whether a service can do its work, and if not, why: each part it depends on is up, or down with a reason.
//!
//! Liveness is another question: a process that answers is alive, and restarting it would not bring MySQL back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use metrics::gauge;

use crate::http::Certificate;

/// The state of all parts of one service, and what it shows to clients. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<Parts>>,
    certificate: Arc<OnceLock<Certificate>>,
}

/// Why each part is down; `None` when it is up.
type Parts = BTreeMap<&'static str, Option<String>>;

impl Health {
    /// No parts yet, which counts as ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part of the service, down with "starting" until it says otherwise.
    pub fn component(&self, name: &'static str) -> Component {
        metrics::describe_gauge!("wired_component_up", "1 when the part of the service is up, else 0");
        gauge!("wired_component_up", "component" => name).set(0.0);
        self.with_parts(|parts| parts.insert(name, Some("starting".to_owned())));
        Component { health: self.clone(), name }
    }

    /// `Ok` when every part is up, else the parts that are down and why.
    pub fn ready(&self) -> Result<(), Vec<(&'static str, String)>> {
        let down: Vec<_> = self.with_parts(|parts| {
            parts.iter().filter_map(|(name, why)| why.clone().map(|why| (*name, why))).collect()
        });
        if down.is_empty() { Ok(()) } else { Err(down) }
    }

    /// Tells the certificate of the public listener, when it has one. It makes nothing unready: when it has expired on
    /// one replica it has on all.
    pub fn shows(&self, certificate: Option<Certificate>) {
        if let Some(certificate) = certificate {
            // There is one public listener, so nothing is there yet.
            let _ = self.certificate.set(certificate);
        }
    }

    /// When the certificate expires; `None` without TLS.
    pub fn certificate_expires_at(&self) -> Option<SystemTime> {
        self.certificate.get().map(Certificate::expires_at)
    }

    /// Every part and why it is down, if it is.
    pub fn components(&self) -> Vec<(&'static str, Option<String>)> {
        self.with_parts(|parts| parts.iter().map(|(name, why)| (*name, why.clone())).collect())
    }

    fn with_parts<T>(&self, read: impl FnOnce(&mut Parts) -> T) -> T {
        // A panic elsewhere cannot leave the map half changed.
        read(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One part of a service.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    name: &'static str,
}

impl Component {
    /// The part works.
    pub fn up(&self) {
        self.set(None);
    }

    /// The part does not work, and why. The reason is shown on the private listener: no secret, no personal datum.
    pub fn down(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    /// Logs only changes, since callers report after each attempt.
    fn set(&self, why: Option<String>) {
        let name = self.name;
        let before = self.health.with_parts(|parts| parts.insert(name, why.clone())).flatten();
        if before == why {
            return;
        }
        gauge!("wired_component_up", "component" => name).set(if why.is_none() { 1.0 } else { 0.0 });
        match why {
            None => tracing::info!(component = name, "component up"),
            // The first failure tells of the change; a changing reason is for who looks closer.
            Some(why) if before.is_none() => tracing::warn!(component = name, why, "component down"),
            Some(why) => tracing::info!(component = name, why, "component still down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_component_is_up_and_else_says_why() {
        let health = Health::new();
        assert_eq!(health.ready(), Ok(()));
        let (mysql, kafka) = (health.component("mysql"), health.component("kafka"));
        let starting = || "starting".to_owned();
        assert_eq!(health.ready(), Err(vec![("kafka", starting()), ("mysql", starting())]));
        mysql.up();
        kafka.down("no broker");
        assert_eq!(health.ready(), Err(vec![("kafka", "no broker".to_owned())]));
        kafka.clone().up();
        assert_eq!(health.ready(), Ok(()));
    }
}
