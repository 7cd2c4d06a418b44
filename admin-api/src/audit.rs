//! What is written down of who did what, beside the commands that `payments` and `changes` audit themselves.
//!
//! A row is written in the transaction of the action, so there is no action without its row and no row without its
//! action. Of personal data only the names of the changed fields are told, of secrets nothing.

use std::net::IpAddr;

use domain::ids::UserId;
use serde_json::Value;
use uuid::Uuid;

/// The words of `audit_log.action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Action {
    Register,
    SetPassword,
    ChangePassword,
    AskPasswordReset,
    LogIn,
    LogOut,
    LogOutEverywhere,
    ReuseRefreshToken,
    StepUp,
    BeginSecondFactor,
    ConfirmSecondFactor,
    RemoveSecondFactor,
    RenewRecoveryCodes,
    ChangeProfile,
    ExportOwnData,
    Erase,
    AskEmailChange,
    ChangeEmail,
    ReadPersonalData,
    InviteAdmin,
    ExportAudit,
    VerifyAudit,
    RequestApproval,
    Approve,
    RejectApproval,
    CancelApproval,
    InviteStaff,
    ChangeRole,
    DisableUser,
    EnableUser,
    RegisterPartner,
    ChangePartner,
    ActivatePartner,
    SuspendPartner,
    ReadContact,
    ApproveApplication,
    DeclineApplication,
    IssueKey,
    ShowSecret,
    RevokeKey,
    AddReturnUrl,
    RemoveReturnUrl,
    EnableEndpoint,
    ResendDelivery,
}

impl Action {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "user.register",
            Self::SetPassword => "user.set_password",
            Self::ChangePassword => "user.change_password",
            Self::AskPasswordReset => "user.ask_password_reset",
            Self::LogIn => "user.log_in",
            Self::LogOut => "user.log_out",
            Self::LogOutEverywhere => "user.log_out_everywhere",
            Self::ReuseRefreshToken => "user.reuse_refresh_token",
            Self::StepUp => "user.step_up",
            Self::BeginSecondFactor => "user.begin_second_factor",
            Self::ConfirmSecondFactor => "user.confirm_second_factor",
            Self::RemoveSecondFactor => "user.remove_second_factor",
            Self::RenewRecoveryCodes => "user.renew_recovery_codes",
            Self::ChangeProfile => "user.change_profile",
            Self::ExportOwnData => "user.export_own_data",
            Self::Erase => "user.erase",
            Self::AskEmailChange => "user.ask_email_change",
            Self::ChangeEmail => "user.change_email",
            Self::ReadPersonalData => "user.read_personal_data",
            Self::InviteAdmin => "user.invite_admin",
            Self::ExportAudit => "audit.export",
            Self::VerifyAudit => "audit.verify",
            Self::RequestApproval => "approval.request",
            Self::Approve => "approval.approve",
            Self::RejectApproval => "approval.reject",
            Self::CancelApproval => "approval.cancel",
            Self::InviteStaff => "user.invite_staff",
            Self::ChangeRole => "user.change_role",
            Self::DisableUser => "user.disable",
            Self::EnableUser => "user.enable",
            Self::RegisterPartner => "partner.register",
            Self::ChangePartner => "partner.change",
            Self::ActivatePartner => "partner.activate",
            Self::SuspendPartner => "partner.suspend",
            Self::ReadContact => "partner.read_contact",
            Self::ApproveApplication => "application.approve",
            Self::DeclineApplication => "application.decline",
            Self::IssueKey => "api_key.issue",
            Self::ShowSecret => "api_key.show_secret",
            Self::RevokeKey => "api_key.revoke",
            Self::AddReturnUrl => "return_url.add",
            Self::RemoveReturnUrl => "return_url.remove",
            Self::EnableEndpoint => "endpoint.enable",
            Self::ResendDelivery => "delivery.resend",
        }
    }
}

/// Whether it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It was.
    Done = 1,
    /// It was tried and refused.
    Refused = 2,
}

/// Where a request came from: what every row says beside who and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The id of the request, as in its answer.
    pub request_id: Uuid,
    /// The client's network address; `None` for a command on the server.
    pub address: Option<IpAddr>,
}

/// A row of `audit_log`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who, when known.
    pub actor: Option<UserId>,
    /// What.
    pub action: Action,
    /// To whom or what, as an id with its prefix.
    pub target: Option<String>,
    /// Whether it was done.
    pub outcome: Outcome,
    /// What changed.
    pub detail: Value,
    /// From where.
    pub origin: Origin,
}

impl Entry {
    /// Somebody does something to themselves.
    pub fn own(user: UserId, action: Action, origin: Origin) -> Self {
        let target = Some(user.to_string());
        let detail = Value::Object(serde_json::Map::new());
        Self { actor: Some(user), action, target, outcome: Outcome::Done, detail, origin }
    }

    /// With what changed.
    #[must_use]
    pub fn with(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// It was refused.
    #[must_use]
    pub const fn refused(mut self) -> Self {
        self.outcome = Outcome::Refused;
        self
    }
}
