//! Databases of their own for tests, and users with the rights of the services.

#![allow(clippy::unwrap_used, clippy::new_without_default, reason = "a test fails loudly")]

use secrecy::SecretString;
use test_servers::Postgres;
use tokio::sync::Mutex;

use super::{Database, DatabaseOptions, schema};

/// The roles as an administrator makes them.
pub const ROLES: &str = include_str!("../../../../migrations/roles.sql");

/// The users of the tests. Their names are the password too.
const USERS: &str = "
    do $$
    begin
        if not exists (select from pg_roles where rolname = 'test_owner') then
            create user test_owner password 'test_owner' in role knovvu_owner;
            alter user test_owner set role knovvu_owner;
            create user test_producer password 'test_producer' in role knovvu_producer;
            create user test_consumer password 'test_consumer' in role knovvu_consumer;
            create user test_analysis password 'test_analysis' in role knovvu_analysis;
            create user test_services password 'test_services' in role knovvu_producer, knovvu_consumer;
        end if;
    end
    $$";

/// Roles belong to the whole server, and two sessions do not change them at the same time.
static CHANGING_ROLES: Mutex<()> = Mutex::const_new(());

/// A fresh, migrated database on the server that all tests share; its user is the superuser.
pub async fn test_database() -> Database {
    TestDatabase::on(test_servers::postgres().await).await.admin
}

/// The database at this URL.
pub fn open(url: &str) -> Database {
    let options = DatabaseOptions { url: SecretString::from(url), connections: 8, service: "test" };
    Database::new(options).unwrap()
}

/// A fresh database, set up as the guide says: roles, tables by their owner, rights.
pub struct TestDatabase<'a> {
    server: &'a Postgres,
    /// Its name.
    pub name: String,
    /// As the superuser.
    pub admin: Database,
}

impl<'a> TestDatabase<'a> {
    /// On this server.
    pub async fn on(server: &'a Postgres) -> Self {
        let admin = open(&server.database().await);
        let row = admin.client().await.unwrap().query_one("select current_database()", &[]).await.unwrap();
        let database = Self { server, name: row.get(0), admin };
        database.apply(&[ROLES, USERS]).await;
        schema::migrate(&database.member("test_owner")).await.unwrap();
        // Repeating it is harmless.
        database.apply(&[ROLES, ROLES]).await;
        database
    }

    /// Some SQL as the superuser.
    pub async fn sql(&self, sql: &str) {
        self.admin.client().await.unwrap().batch_execute(sql).await.unwrap();
    }

    /// Some SQL that changes roles.
    pub async fn apply(&self, texts: &[&str]) {
        let _one = CHANGING_ROLES.lock().await;
        for text in texts {
            self.sql(text).await;
        }
    }

    /// The URL for one of the users.
    pub fn url(&self, user: &str) -> String {
        self.server.url_of(&self.name, user, user)
    }

    /// The database as one of the users: `test_owner`, `test_producer`, `test_consumer`, `test_analysis`, or
    /// `test_services`, which is producer and consumer.
    pub fn member(&self, user: &str) -> Database {
        open(&self.url(user))
    }
}
