//! What mails say, and how they leave: by SMTP with checked TLS, or as `.eml` files in a folder.
//!
//! A mail carries at most one link, and no name in its subject: mails are read on locked screens.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::config::{Error, MailConfig};
use crate::personal::Email;
use crate::store::mails::MailKind;

/// Minutes that a link counts.
pub const LINK_MINUTES: u32 = 30;
/// How long the mail server may take for one mail.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why a mail did not leave.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The mail server, or the way to it. What it says is not kept: it quotes addresses.
    #[error("the mail server did not take it ({0})")]
    Smtp(String),
    /// The mail server will never take it, for nobody has this address.
    #[error("the mail server refuses it for good ({0})")]
    Refused(String),
    /// It did not answer in time.
    #[error("the mail server did not answer in time")]
    Timeout,
    /// The folder.
    #[error("the folder of mails cannot be written: {0}")]
    Folder(#[from] std::io::Error),
    /// No message can be made of it.
    #[error("no message can be made of it: {0}")]
    Message(#[from] lettre::error::Error),
}

/// Sends mails.
pub struct Mailer {
    from: Mailbox,
    base_url: String,
    way: Way,
}

enum Way {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Folder(PathBuf),
}

/// Where the token of a link leads that sets a password.
pub fn link(base_url: &str, token: &str) -> String {
    format!("{base_url}/set-password?token={token}")
}

/// Where the token of a mail's link leads.
fn link_of(kind: MailKind, base_url: &str, token: &str) -> String {
    match kind {
        MailKind::ConfirmEmail => format!("{base_url}/confirm-email?token={token}"),
        _ => link(base_url, token),
    }
}

impl Mailer {
    /// By what is configured; one of the two ways has to be.
    pub fn new(config: &MailConfig, base_url: String) -> Result<Self, Error> {
        let refuse = |variable, why: &str| Error::Setting { variable, why: why.to_owned() };
        let from = config
            .mail_from
            .parse()
            .map_err(|_| refuse("WIRED_MAIL_FROM", "is no sender such as Bank <no-reply@bank.example>"))?;
        let way = match (&config.smtp_url, &config.mail_folder) {
            (Some(url), None) => {
                let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
                    .map_err(|_| refuse("WIRED_SMTP_URL", "is no smtp:// or smtps:// URL (not shown)"))?;
                // Without TLS the links would travel readable.
                if !url.starts_with("smtps://") && !url.contains("tls=required") {
                    return Err(refuse("WIRED_SMTP_URL", "has no TLS: use smtps:// or add ?tls=required"));
                }
                Way::Smtp(Box::new(builder.timeout(Some(TIMEOUT)).build()))
            }
            (None, Some(folder)) => Way::Folder(folder.clone()),
            _ => return Err(refuse("WIRED_SMTP_URL", "set either this or WIRED_MAIL_FOLDER")),
        };
        Ok(Self { from, base_url, way })
    }

    /// Sends one mail. `id` is the message's, so that a repeat is recognised; `token` is that of its link.
    pub async fn send(
        &self,
        id: Uuid,
        kind: MailKind,
        to: &Email,
        name: &str,
        token: Option<&str>,
    ) -> Result<(), MailError> {
        let link = token.map(|token| link_of(kind, &self.base_url, token)).unwrap_or_default();
        let (subject, text) = words(kind, name, &link);
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to.address().clone()))
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .subject(subject)
            .header(ContentType::TEXT_PLAIN)
            .body(encoded(text))?;
        match &self.way {
            Way::Smtp(transport) => {
                let sent = tokio::time::timeout(TIMEOUT, transport.send(message)).await;
                sent.map_err(|_| MailError::Timeout)?.map_err(|error| smtp_error(&error))?;
            }
            Way::Folder(folder) => write(folder, id, &message.formatted()).await?,
        }
        Ok(())
    }
}

fn smtp_error(error: &lettre::transport::smtp::Error) -> MailError {
    let what = match error.status() {
        Some(code) => format!("status {code}"),
        None if error.is_timeout() => "timeout".to_owned(),
        None if error.is_tls() => "tls".to_owned(),
        None => "no connection, or no answer that can be read".to_owned(),
    };
    if error.is_permanent() { MailError::Refused(what) } else { MailError::Smtp(what) }
}

/// As it is, when it is ASCII: lines may have 998 characters (RFC 5322, section 2.1.1), and quoting the long line of a
/// link would make the files of a folder unreadable. Other text is encoded as usual.
fn encoded(text: String) -> Body {
    if text.is_ascii() {
        return Body::dangerous_pre_encoded(
            text.replace('\n', "\r\n").into_bytes(),
            ContentTransferEncoding::SevenBit,
        );
    }
    Body::new(text)
}

/// Whole or not at all, readable for the owner alone.
async fn write(folder: &PathBuf, id: Uuid, bytes: &[u8]) -> Result<(), std::io::Error> {
    tokio::fs::create_dir_all(folder).await?;
    let (unfinished, finished) = (folder.join(format!(".{id}")), folder.join(format!("{id}.eml")));
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished).await?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    tokio::fs::rename(unfinished, finished).await
}

fn words(kind: MailKind, name: &str, link: &str) -> (&'static str, String) {
    let (subject, text) = match kind {
        MailKind::Registration => (
            "Complete your registration",
            format!(
                "somebody, probably you, registered this address with Wired City. To complete the registration, open \
                 this link within {LINK_MINUTES} minutes and choose a password:\n\n{link}\n\n\
                 If it was not you, do nothing: without the link nobody gets in."
            ),
        ),
        MailKind::RegisteredAlready => (
            "You are registered already",
            "somebody, probably you, tried to register this address with Wired City again. You have an account \
             already: log in with your password, or ask for a new one if you have forgotten it.\n\n\
             If it was not you, you need not do anything."
                .to_owned(),
        ),
        MailKind::Reset => (
            "Set a new password",
            format!(
                "somebody, probably you, asked for a new password. Open this link within {LINK_MINUTES} minutes and \
                 choose one:\n\n{link}\n\nIf it was not you, do nothing: your password stays."
            ),
        ),
        MailKind::PasswordChanged => (
            "Your password was changed",
            "your password was changed, and you were logged out everywhere else.\n\n\
             If it was not you, set a new password at once and call us."
                .to_owned(),
        ),
        MailKind::SecondFactorChanged => (
            "Your second factor was changed",
            "your second factor or its recovery codes were changed.\n\nIf it was not you, call us at once.".to_owned(),
        ),
        MailKind::Invitation => (
            "You are invited to Wired City",
            format!(
                "you are invited to the staff of Wired City. Open this link within {LINK_MINUTES} minutes, choose a \
                 password, and set up your second factor when you log in:\n\n{link}\n\n\
                 If you did not expect this, do nothing: without the link nobody gets in. If the link is too old, \
                 ask to be invited again."
            ),
        ),
        MailKind::SessionEnded => (
            "We ended one of your sessions",
            "a token of one of your sessions was used twice, so somebody may have a copy of it. We ended that \
             session.\n\nIf you did not restore a device from a copy, set a new password."
                .to_owned(),
        ),
        MailKind::ConfirmEmail => (
            "Confirm your new e-mail address",
            format!(
                "somebody, probably you, wants to log in to Wired City with this address from now on. Open this link \
                 within {LINK_MINUTES} minutes:\n\n{link}\n\nIf it was not you, do nothing: without the link nothing \
                 changes."
            ),
        ),
        MailKind::EmailTaken => (
            "Somebody wanted to use your e-mail address",
            "somebody, perhaps you, wanted to use this address for another log-in at Wired City. It is yours already, so \
             nothing was changed.\n\nIf it was not you, you need not do anything."
                .to_owned(),
        ),
        MailKind::EmailChanged => (
            "Your e-mail address was changed",
            "you log in to Wired City with another e-mail address from now on, and get our mails there.\n\n\
             If it was not you, call us at once."
                .to_owned(),
        ),
    };
    let greeting = if name.is_empty() { "Hello,".to_owned() } else { format!("Hello {name},") };
    (subject, format!("{greeting}\n\n{text}\n\nWired City\n"))
}
