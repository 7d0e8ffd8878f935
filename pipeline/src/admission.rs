//! Who may read, and who may act, at the admin address.
//!
//! | shown | may read | may act |
//! |---|---|---|
//! | the token in `{state.dir}/admin.json` | yes | yes |
//! | `[admin] act_token` | yes | yes |
//! | `[admin] read_token` | yes | no |
//! | `[admin] role_header`, from an address in `[admin] proxies` | yes | where it says `act` |
//! | nothing, on a loopback address, where no read_token is set | the page | no |
//!
//! A command shows its token with each request. A browser shows it once, in a form, and gets a cookie of a session.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::config::AdminConfig;

mod attempts;
mod origin;
mod sessions;

use attempts::LoginAttempts;
use sessions::{BrowserSession, SessionTable};

/// What somebody may do. Who may act may read, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OperatorRole {
    /// See everything but what is personal.
    Read,
    /// Replay, drop, begin and stop, and see what is personal.
    Act,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// What they may do; none: nothing.
    pub(crate) role: Option<OperatorRole>,
    /// By what they are known, for the audit.
    pub(crate) who: String,
    /// What their forms carry; none: they have no session.
    pub(crate) form_token: Option<String>,
}

impl Visitor {
    /// Whether they may do what asks for a role.
    pub(crate) fn may(&self, role: OperatorRole) -> bool {
        self.role.is_some_and(|own| own >= role)
    }
}

/// Why a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginRefused {
    /// It is no token of ours.
    Wrong,
    /// Too many wrong ones came; not even looked at.
    TooMany,
}

/// The rules; clones share their sessions.
#[derive(Clone)]
pub(crate) struct AccessRules {
    rules: Arc<Rules>,
    sessions: Arc<Mutex<SessionTable>>,
    attempts: Arc<Mutex<LoginAttempts>>,
}

struct Rules {
    file_token: SecretString,
    read_token: Option<SecretString>,
    act_token: Option<SecretString>,
    is_loopback: bool,
    hosts: Vec<String>,
    role_header: Option<String>,
    user_header: String,
    proxies: Vec<IpAddr>,
    cookie: String,
}

impl AccessRules {
    /// The rules of the settings, and the token of `admin.json`.
    pub(crate) fn new(config: &AdminConfig, file_token: SecretString) -> Self {
        let rules = Rules {
            file_token,
            read_token: config.read_token.clone(),
            act_token: config.act_token.clone(),
            is_loopback: config.listen.ip().is_loopback(),
            hosts: config.hosts.clone(),
            role_header: config.role_header.clone(),
            user_header: config.user_header.clone(),
            proxies: config.proxies.clone(),
            // A browser sends a cookie to every port of a host.
            cookie: format!("knovvu_session_{}", config.listen.port()),
        };
        Self { rules: Arc::new(rules), sessions: Arc::default(), attempts: Arc::default() }
    }

    /// Whose token this is, and what it is called in the audit.
    pub(crate) fn of_token(&self, given: &str) -> Option<(OperatorRole, &'static str)> {
        let Rules { file_token, read_token, act_token, .. } = &*self.rules;
        let tokens = [
            (Some(file_token), OperatorRole::Act, "token of admin.json"),
            (act_token.as_ref(), OperatorRole::Act, "act token"),
            (read_token.as_ref(), OperatorRole::Read, "read token"),
        ];
        // All are compared, so that the time does not tell which one was near.
        let mut found = None;
        for (token, role, name) in tokens {
            let is_it = token.is_some_and(|token| bool::from(token.expose_secret().as_bytes().ct_eq(given.as_bytes())));
            if is_it && found.is_none() {
                found = Some((role, name));
            }
        }
        found
    }

    /// Who asks for a page.
    pub(crate) fn visitor(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Visitor {
        if let Some(visitor) = self.through_proxy(headers, peer) {
            return visitor;
        }
        let session = cookie(headers, &self.rules.cookie).and_then(|id| self.sessions().of(id));
        if let Some(BrowserSession { role, who, form_token, .. }) = session {
            return Visitor { role: Some(role), who, form_token: Some(form_token) };
        }
        let role = (self.rules.is_loopback && self.rules.read_token.is_none()).then_some(OperatorRole::Read);
        Visitor { role, who: "nobody signed in".to_owned(), form_token: None }
    }

    fn through_proxy(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Visitor> {
        let header = self.rules.role_header.as_ref()?;
        peer.filter(|peer| self.rules.proxies.contains(peer))?;
        let role = match headers.get(header)?.to_str().ok()? {
            "read" => OperatorRole::Read,
            "act" => OperatorRole::Act,
            _ => return None,
        };
        let user = headers.get(&self.rules.user_header).and_then(|user| user.to_str().ok()).unwrap_or("no name");
        let user: String = user.chars().filter(|char| !char.is_control()).take(100).collect();
        let session = self.sessions().of_user(&user, role);
        Some(Visitor { role: Some(role), who: session.who, form_token: Some(session.form_token) })
    }

    /// Begins a session; the value of its cookie.
    pub(crate) fn sign_in(
        &self,
        token: &str,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<String, LoginRefused> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if !attempts.may_try(peer, Instant::now()) {
            return Err(LoginRefused::TooMany);
        }
        let Some((role, name)) = self.of_token(token.trim()) else {
            attempts.count_wrong(peer, Instant::now());
            tracing::warn!("a wrong token was shown at the admin page");
            return Err(LoginRefused::Wrong);
        };
        let id = self.sessions().begin(role, name);
        // Behind a proxy that speaks TLS the cookie never goes in clear.
        let is_https = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        let secure = if is_https { "; Secure" } else { "" };
        Ok(format!("{}={id}; Path=/; HttpOnly; SameSite=Strict{secure}", self.rules.cookie))
    }

    /// Ends a session; what clears its cookie.
    pub(crate) fn sign_out(&self, headers: &HeaderMap) -> String {
        if let Some(id) = cookie(headers, &self.rules.cookie) {
            self.sessions().end(id);
        }
        format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0", self.rules.cookie)
    }

    /// Whether a page may be asked for by this name. On a loopback address nothing else than a name of this machine
    /// leads here, but for a foreign page whose name was made to: it would read the answer.
    pub(crate) fn knows_host(&self, headers: &HeaderMap) -> bool {
        !self.rules.is_loopback || origin::is_known_host(headers, &self.rules.hosts)
    }

    /// Whether a form was sent by a page of ours, as far as the browser says.
    pub(crate) fn is_own_form(&self, headers: &HeaderMap) -> bool {
        origin::is_same_origin(headers)
    }

    /// Whether the page shows nothing to anybody: it listens beyond this machine, and no token is set.
    pub(crate) fn is_closed(&self) -> bool {
        let Rules { is_loopback, read_token, act_token, role_header, .. } = &*self.rules;
        !is_loopback && read_token.is_none() && act_token.is_none() && role_header.is_none()
    }

    fn sessions(&self) -> MutexGuard<'_, SessionTable> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cookie's value.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
