//! The sessions of browsers: in memory, bounded, and gone with the process.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::OperatorRole;

/// Sessions at a time; one more ends the one that was idle for longest.
const MOST_SESSIONS: usize = 256;

/// A session that nobody uses for so long ends.
const IDLE: Duration = Duration::from_secs(8 * 3600);

/// A browser that has shown a token, or a user of a proxy.
#[derive(Debug, Clone)]
pub(super) struct BrowserSession {
    pub(super) role: OperatorRole,
    /// By what it is known in the audit.
    pub(super) who: String,
    /// What its forms carry, so that another page cannot send them.
    pub(super) form_token: String,
    used: Instant,
}

impl BrowserSession {
    fn new(role: OperatorRole, who: String) -> Self {
        Self { role, who, form_token: secret(), used: Instant::now() }
    }
}

/// Every session, by the value of its cookie.
#[derive(Default)]
pub(super) struct SessionTable(BTreeMap<String, BrowserSession>);

impl SessionTable {
    /// Begins one; the value of its cookie.
    pub(super) fn begin(&mut self, role: OperatorRole, token: &str) -> String {
        let id = secret();
        // A part that is no secret tells one session from another.
        let who = format!("{token}, session {}", &secret()[..6]);
        self.insert(id.clone(), BrowserSession::new(role, who));
        id
    }

    /// The one of a cookie.
    pub(super) fn of(&mut self, id: &str) -> Option<BrowserSession> {
        // What is no cookie of ours: the key of a proxy's user.
        let session = self.0.get_mut(id).filter(|_| !id.starts_with(PROXY))?;
        if session.used.elapsed() >= IDLE {
            self.0.remove(id);
            return None;
        }
        session.used = Instant::now();
        Some(session.clone())
    }

    /// The one of a user whom a proxy has signed in.
    pub(super) fn of_user(&mut self, user: &str, role: OperatorRole) -> BrowserSession {
        let key = format!("{PROXY}{user}");
        if let Some(session) = self.0.get_mut(&key) {
            (session.role, session.used) = (role, Instant::now());
            return session.clone();
        }
        let session = BrowserSession::new(role, format!("user {user}"));
        self.insert(key, session.clone());
        session
    }

    /// Ends one.
    pub(super) fn end(&mut self, id: &str) {
        self.0.remove(id);
    }

    fn insert(&mut self, key: String, session: BrowserSession) {
        self.0.retain(|_, session| session.used.elapsed() < IDLE);
        if self.0.len() >= MOST_SESSIONS
            && let Some(oldest) = self.0.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, session);
    }
}

/// What the keys of a proxy's users begin with; the value of a cookie never does.
const PROXY: &str = "proxy ";

#[expect(clippy::disallowed_methods, reason = "nobody may guess it")]
fn secret() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}
