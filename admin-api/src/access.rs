//! Who may call what: a role is an extractor, so a handler's signature says who reaches it.
//!
//! | extractor | lets in |
//! |---|---|
//! | [`Visitor`] | everybody |
//! | [`Signed`] | every live session, also of staff who have no second factor yet |
//! | [`Enrolling`] | the same of staff |
//! | [`Person`] | every role; staff with their second factor |
//! | [`Customer`] | customers |
//! | [`Reader`] | operators, auditors, admins |
//! | [`Operator`] | operators, admins |
//! | [`Auditor`] | auditors, admins |
//! | [`Admin`] | admins |
//! | [`Fresh`] of one of these | the same, when they proved who they are within 5 minutes |
//!
//! A request with no valid token is 401; a role that may not do this is 403, and what belongs to somebody else is 404,
//! decided by the handler.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use domain::ids::UserId;
use http::header;
use http::request::Parts;
use uuid::Uuid;

use crate::app::App;
use crate::audit::Origin;
use crate::calls::Known;
use crate::problem::{Code, Problem};
use crate::roles::{Role, UserStatus};
use crate::store::sessions::SessionRow;

/// How old a proof may be for what [`Fresh`] guards.
const PROOF_AGE_MAX_S: i64 = 300;

/// Who calls, in which session, from where.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The session.
    pub session: Uuid,
    /// The user's role.
    pub role: Role,
    /// Where from.
    pub origin: Origin,
    row: SessionRow,
}

/// Where a request comes from, as [`crate::answer`] found it.
pub fn origin(parts: &Parts) -> Result<Origin, Problem> {
    parts.extensions.get::<Origin>().copied().ok_or_else(|| Problem::internal(&"a request without an origin"))
}

async fn caller(parts: &Parts, app: &App) -> Result<Caller, Problem> {
    let origin = origin(parts)?;
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| Problem::plain(Code::TokenMissing))?;
    let invalid = || Problem::plain(Code::TokenInvalid);
    if values.next().is_some() {
        return Err(invalid());
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(invalid)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(invalid());
    }
    let bearer = app.signer.verify(token.trim()).ok_or_else(invalid)?;
    let row = app.sessions.find(&app.pool, bearer.session).await?.ok_or_else(invalid)?;
    if !row.is_live || row.user != bearer.user || row.status != UserStatus::Active {
        return Err(invalid());
    }
    if let Some(known) = parts.extensions.get::<Known>() {
        known.by(bearer.user);
    }
    Ok(Caller { user: bearer.user, session: bearer.session, role: row.role, origin, row })
}

impl Caller {
    /// Staff count as who they are only with their second factor.
    fn is_whole(&self) -> bool {
        !self.role.is_staff() || (self.row.totp_confirmed && self.row.second_factor)
    }

    fn require(self, roles: &[Role]) -> Result<Self, Problem> {
        if !roles.contains(&self.role) {
            return Err(Problem::plain(Code::RoleMissing));
        }
        if !self.is_whole() {
            return Err(Problem::plain(Code::SecondFactorMissing));
        }
        Ok(self)
    }
}

/// An extractor that is one of the roles.
pub trait Access: Sized {
    /// Lets a caller in, or says why not.
    fn admit(caller: Caller) -> Result<Self, Problem>;

    /// Who was let in.
    fn caller(&self) -> &Caller;
}

macro_rules! access {
    ($($(#[$doc:meta])* $Name:ident($caller:ident) $admit:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $Name(pub Caller);

        impl Access for $Name {
            fn admit($caller: Caller) -> Result<Self, Problem> {
                $admit.map(Self)
            }

            fn caller(&self) -> &Caller {
                &self.0
            }
        }

        impl FromRequestParts<Arc<App>> for $Name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
                Self::admit(caller(parts, app).await?)
            }
        }
    )*};
}

access! {
    /// Every live session, also of staff who have no second factor yet.
    Signed(caller) Ok::<_, Problem>(caller);
    /// Staff, also without a second factor: who sets one up.
    Enrolling(caller) if caller.role.is_staff() { Ok(caller) } else { Err(Problem::plain(Code::RoleMissing)) };
    /// Every role.
    Person(caller) caller.require(&Role::ALL);
    /// Customers.
    Customer(caller) caller.require(&[Role::Customer]);
    /// Whoever may read everything.
    Reader(caller) caller.require(&[Role::Operator, Role::Auditor, Role::Admin]);
    /// Whoever runs the bank.
    Operator(caller) caller.require(&[Role::Operator, Role::Admin]);
    /// Whoever reads the audit log.
    Auditor(caller) caller.require(&[Role::Auditor, Role::Admin]);
    /// Whoever runs partners and staff.
    Admin(caller) caller.require(&[Role::Admin]);
}

/// One of the above who proved within 5 minutes who they are.
#[derive(Debug, Clone, Copy)]
pub struct Fresh<A>(pub A);

impl<A: Access> FromRequestParts<Arc<App>> for Fresh<A> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let admitted = A::admit(caller(parts, app).await?)?;
        let row = admitted.caller().row;
        // What is remembered may be two seconds old, and so is its clock: the bound is exact to that.
        if row.proven_at.plus_seconds(PROOF_AGE_MAX_S) < row.now {
            return Err(Problem::plain(Code::ProofTooOld));
        }
        Ok(Self(admitted))
    }
}

/// Where a request comes from, for routes that nobody has to log in for.
#[derive(Debug, Clone, Copy)]
pub struct Visitor(pub Origin);

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        origin(parts).map(Self)
    }
}
