//! Requests as bytes, made and signed before the clock starts: payments, batches of payments, reads; and unsigned ones,
//! each from an address of its own.

use std::net::SocketAddr;

use client::PaymentRequest;
use domain::http_signature::{self, RequestParts, content_digest};
use domain::ids::{MandateId, PartnerId, PaymentId, payment_id};
use domain::money::{Amount, Currency};
use domain::secret::HmacKey;
use http::{HeaderMap, HeaderValue, Method};

use crate::driver::{now_us, scatter};
use crate::system::Partner;

const PATH: &str = "/v1/payments";
const BATCH_PATH: &str = "/v1/payments/batch";

/// Who posts.
pub(in crate::bench) struct Signer<'a> {
    pub(in crate::bench) partner: PartnerId,
    pub(in crate::bench) key_id: &'a str,
    pub(in crate::bench) key_secret: &'a str,
    pub(in crate::bench) mandates: &'a [MandateId],
}

impl<'a> Signer<'a> {
    /// With all that a seeded partner has.
    pub(in crate::bench) fn of(partner: &'a Partner) -> Self {
        Self {
            partner: partner.id,
            key_id: &partner.key_id,
            key_secret: &partner.key_secret,
            mandates: &partner.mandates,
        }
    }

    /// The payment with this number, under a mandate drawn evenly.
    fn payment(&self, number: u64) -> anyhow::Result<PaymentRequest> {
        let draw = scatter(number);
        let mandate = self.mandates[(draw % self.mandates.len() as u64) as usize];
        let amount = Amount::new(1 + ((draw >> 40) % 100) as i64, Currency::EUR)?;
        let mut payment = PaymentRequest::new(mandate, amount);
        payment.reference = Some(format!("order-{number}"));
        Ok(payment)
    }
}

/// Requests as bytes.
pub(in crate::bench) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// The payment that each stands for, when each stands for one.
    pub(in crate::bench) payments: Vec<PaymentId>,
}

impl Requests {
    fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::new(), payments: Vec::new() }
    }

    /// Signs `count` payments for the server at `address`; `wait` is `Prefer: wait`. Signatures hold for 300 s.
    pub(in crate::bench) fn sign(
        signer: &Signer<'_>,
        address: SocketAddr,
        name: &str,
        count: usize,
        wait: Option<u8>,
    ) -> anyhow::Result<Self> {
        let seal = Seal::new(signer, address)?;
        let mut requests = Self::with_capacity(count * 900);
        for number in 0..count as u64 {
            let body = serde_json::to_vec(&signer.payment(number)?)?;
            let idempotency_key = format!("{name}-{number}");
            let mut headers = seal.write(PATH, &idempotency_key, &body)?;
            if let Some(wait) = wait {
                headers.insert("prefer", HeaderValue::try_from(format!("wait={wait}"))?);
            }
            requests.push("POST", PATH, &seal.authority, &headers, &body);
            requests.payments.push(payment_id(signer.partner, &idempotency_key));
        }
        Ok(requests)
    }

    /// Signs `count` batches of `items` payments each, which are the payments that [`Self::sign`] makes.
    pub(in crate::bench) fn sign_batches(
        signer: &Signer<'_>,
        address: SocketAddr,
        name: &str,
        count: usize,
        items: usize,
    ) -> anyhow::Result<Self> {
        let seal = Seal::new(signer, address)?;
        let mut requests = Self::with_capacity(count * (600 + 200 * items));
        for batch in 0..count as u64 {
            let mut payments = Vec::with_capacity(items);
            for number in batch * items as u64..(batch + 1) * items as u64 {
                let mut payment = serde_json::to_value(signer.payment(number)?)?;
                payment["idempotency_key"] = format!("{name}-{number}").into();
                payments.push(payment);
            }
            let body = serde_json::to_vec(&serde_json::json!({ "payments": payments }))?;
            let headers = seal.write(BATCH_PATH, &format!("{name}-batch-{batch}"), &body)?;
            requests.push("POST", BATCH_PATH, &seal.authority, &headers, &body);
        }
        Ok(requests)
    }

    /// Signs a read of each `(path, query)`.
    pub(in crate::bench) fn sign_reads(
        signer: &Signer<'_>,
        address: SocketAddr,
        targets: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let seal = Seal::new(signer, address)?;
        let mut requests = Self::with_capacity(targets.len() * 700);
        for (path, query) in targets {
            let mut headers = HeaderMap::new();
            seal.sign(&Method::GET, path, Some(query), false, &mut headers)?;
            requests.push("GET", &format!("{path}?{query}"), &seal.authority, &headers, &[]);
        }
        Ok(requests)
    }

    /// A POST of each `(client address, body)` through a proxy that tells the address.
    pub(in crate::bench) fn plain(
        server: SocketAddr,
        path: &str,
        bodies: &[(String, serde_json::Value)],
    ) -> anyhow::Result<Self> {
        let mut requests = Self::with_capacity(bodies.len() * 300);
        for (from, body) in bodies {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            headers.insert("x-forwarded-for", HeaderValue::try_from(from)?);
            requests.push("POST", path, &server.to_string(), &headers, body.to_string().as_bytes());
        }
        Ok(requests)
    }

    fn push(&mut self, method: &str, target: &str, authority: &str, headers: &HeaderMap, body: &[u8]) {
        self.bytes
            .extend_from_slice(format!("{method} {target} HTTP/1.1\r\nhost: {authority}\r\n").as_bytes());
        for (name, value) in headers {
            self.bytes.extend_from_slice(name.as_str().as_bytes());
            self.bytes.extend_from_slice(b": ");
            self.bytes.extend_from_slice(value.as_bytes());
            self.bytes.extend_from_slice(b"\r\n");
        }
        if method != "GET" {
            self.bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(body);
        self.ends.push(self.bytes.len());
    }

    /// The bytes of one request.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        Some(&self.bytes[start..*self.ends.get(index)?])
    }
}

/// Signs for one server.
struct Seal<'a> {
    key_id: &'a str,
    key: HmacKey,
    authority: String,
}

impl<'a> Seal<'a> {
    fn new(signer: &Signer<'a>, address: SocketAddr) -> anyhow::Result<Self> {
        let key = HmacKey::from_base64(signer.key_secret)?;
        Ok(Self { key_id: signer.key_id, key, authority: address.to_string() })
    }

    /// The header fields of a signed `POST`.
    fn write(&self, path: &str, idempotency_key: &str, body: &[u8]) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("content-digest", content_digest::header_value(body));
        headers.insert("idempotency-key", HeaderValue::try_from(idempotency_key)?);
        self.sign(&Method::POST, path, None, true, &mut headers)?;
        Ok(headers)
    }

    fn sign(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        has_body: bool,
        headers: &mut HeaderMap,
    ) -> anyhow::Result<()> {
        let parts = RequestParts { method, authority: &self.authority, path, query, headers, has_body };
        let signature = http_signature::sign(&parts, self.key_id, &self.key, now_us() / 1_000_000, None)?;
        signature.insert_into(headers);
        Ok(())
    }
}
