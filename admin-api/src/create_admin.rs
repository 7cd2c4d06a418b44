//! `admin-api create-admin`: the first two admins, made by whoever may run commands on the server.
//!
//! It makes a user without a password and prints a link that counts once and for half an hour; there is no default
//! password to forget. As soon as two admins are active it does nothing any more: from then on admins are made by
//! admins, two at a time. The same address again prints a new link, and the old one is worthless.

use domain::ids::UserId;
use runtime::config::MysqlConfig;
use serde_json::json;
use sqlx::Connection as _;
use uuid::Uuid;

use crate::audit::{Action, Entry, Origin, Outcome};
use crate::config::{Error, PeopleConfig};
use crate::mail::{LINK_MINUTES, link};
use crate::personal::{Email, Field};
use crate::random::Token;
use crate::roles::{Role, UserStatus};
use crate::store::links::Purpose;
use crate::store::{audit, links, users};

/// With so many active admins the command is of no use any more.
pub const ADMINS: usize = 2;

/// The settings of `admin-api create-admin`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Personal data, and links to people.
    #[command(flatten)]
    pub people: PeopleConfig,
    /// The admin's e-mail address.
    #[arg(long)]
    pub email: String,
    /// The admin's name.
    #[arg(long)]
    pub name: String,
}

/// Why no admin was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] Error),
    /// MySQL.
    #[error("MySQL: {0}")]
    Database(#[from] sqlx::Error),
    /// The address or the name cannot be.
    #[error("{0}")]
    Input(&'static str),
    /// There are admins.
    #[error("there are {ADMINS} active admins: let them make further ones")]
    Enough,
    /// The address is somebody else's.
    #[error("a user with this address exists, and is no admin who still has to set a password")]
    Taken,
}

/// Makes the admin and returns the link.
pub async fn run(config: &Config) -> Result<String, CreateError> {
    let (keys, base_url) = (config.people.keys()?, config.people.base_url()?);
    let email = Email::parse(&config.email).map_err(CreateError::Input)?;
    let name = config.name.trim();
    if name.is_empty() || name.chars().count() > crate::routes::NAME_CHARS_MAX {
        return Err(CreateError::Input("a name has 1 to 100 characters"));
    }
    let index = keys.email_index(&email);
    let mut connection = config.mysql.connect().await?;
    let mut transaction = connection.begin().await?;
    if users::lock_active_admins(&mut transaction).await? >= ADMINS {
        return Err(CreateError::Enough);
    }
    let id = match users::by_email(&mut *transaction, &index).await? {
        Some(user) if user.role == Role::Admin && user.status == UserStatus::Registered => user.id,
        Some(_) => return Err(CreateError::Taken),
        None => {
            let id = UserId::from_uuid(Uuid::now_v7());
            let (person, data_key_sealed) = keys.new_person(id);
            let user = users::NewUser {
                id,
                role: Role::Admin,
                data_key_sealed,
                email_index: index,
                email_sealed: person.seal(Field::Email, email.as_str().as_bytes()),
                name_sealed: person.seal(Field::Name, name.as_bytes()),
            };
            users::insert(&mut transaction, &user).await?;
            id
        }
    };
    let token = Token::draw();
    links::delete_all(&mut transaction, id).await?;
    links::insert(&mut transaction, &token.hash(), id, Purpose::Admin, LINK_MINUTES).await?;
    let entry = Entry {
        actor: None,
        action: Action::InviteAdmin,
        target: Some(id.to_string()),
        outcome: Outcome::Done,
        detail: json!({ "role": Role::Admin.as_str() }),
        origin: Origin { request_id: Uuid::now_v7(), address: None },
    };
    audit::write(&mut transaction, &entry).await?;
    transaction.commit().await?;
    // The connection is closed with the process, if not by this.
    let _ = connection.close().await;
    Ok(link(&base_url, token.text()))
}
