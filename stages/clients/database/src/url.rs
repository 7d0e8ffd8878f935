//! The URL of the database, which may name several hosts.

use std::time::Duration;

use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

use crate::DatabaseError;

/// One host has this long from the first packet to a session that answers.
pub(crate) const HOST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that sent something and hears nothing for so long is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// What a host on another machine is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ssl {
    /// Nothing said: TLS, but plain on this machine.
    Unsaid,
    /// Plain, which only this machine may ask for.
    Disable,
    /// TLS with a verified certificate.
    Require,
}

/// The URL, and what is read from it before `tokio_postgres` does, which knows fewer parameters.
pub(crate) struct Url {
    pub(crate) plain: String,
    pub(crate) ssl: Ssl,
    pub(crate) root_certificate: Option<String>,
}

impl Url {
    pub(crate) fn read(url: &str) -> Result<Self, DatabaseError> {
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(DatabaseError::Settings("does not begin with postgres://".to_owned()));
        }
        let mut read = Self { plain: url.to_owned(), ssl: Ssl::Unsaid, root_certificate: None };
        // A password in front of the @ may hold a question mark.
        let after_credentials = url.find('@').unwrap_or(0);
        let Some(question) = url[after_credentials..].find('?').map(|at| after_credentials + at) else {
            return Ok(read);
        };
        let mut kept = Vec::new();
        for parameter in url[question + 1..].split('&') {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => read.ssl = ssl_mode(mode)?,
                Some(("sslrootcert", "system")) => {}
                Some(("sslrootcert", path)) => read.root_certificate = Some(decoded(path)?),
                _ => kept.push(parameter),
            }
        }
        url[..question].clone_into(&mut read.plain);
        if !kept.is_empty() {
            read.plain = format!("{}?{}", read.plain, kept.join("&"));
        }
        Ok(read)
    }
}

fn ssl_mode(mode: &str) -> Result<Ssl, DatabaseError> {
    match mode {
        "disable" => Ok(Ssl::Disable),
        "prefer" => Ok(Ssl::Unsaid),
        // A certificate that is not verified protects nothing, so that the three are one.
        "require" | "verify-ca" | "verify-full" => Ok(Ssl::Require),
        _ => Err(DatabaseError::Settings("sslmode is disable, prefer, require or verify-full".to_owned())),
    }
}

/// A parameter of a URL as it was meant.
fn decoded(text: &str) -> Result<String, DatabaseError> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| DatabaseError::Settings("sslrootcert is not UTF-8".to_owned()))
}

/// The configuration of one host of the URL.
pub(crate) fn one_host(config: &Config, at: usize, ssl: Ssl, service: &str) -> Result<Config, DatabaseError> {
    let mut one = Config::new();
    let is_own_machine = match (&config.get_hosts()[at], config.get_hostaddrs().get(at)) {
        (Host::Unix(path), _) => {
            one.host_path(path);
            true
        }
        (Host::Tcp(host), address) => {
            one.host(host);
            address.map_or_else(|| is_loopback(host), |address| address.is_loopback())
        }
    };
    if let Some(address) = config.get_hostaddrs().get(at) {
        one.hostaddr(*address);
    }
    if let Some(port) = config.get_ports().get(at).or(config.get_ports().first()) {
        one.port(*port);
    }
    one.ssl_mode(match (ssl, is_own_machine, &config.get_hosts()[at]) {
        (_, _, Host::Unix(_)) | (Ssl::Unsaid | Ssl::Disable, true, _) => SslMode::Disable,
        (Ssl::Unsaid | Ssl::Require, ..) => SslMode::Require,
        (Ssl::Disable, false, _) => {
            let text = "sslmode=disable sends calls' data in the clear to another machine; remove it or use require";
            return Err(DatabaseError::Settings(text.to_owned()));
        }
    });
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(database) = config.get_dbname() {
        one.dbname(database);
    }
    one.application_name(config.get_application_name().unwrap_or(service));
    one.ssl_negotiation(config.get_ssl_negotiation());
    one.channel_binding(config.get_channel_binding());
    one.connect_timeout(config.get_connect_timeout().copied().unwrap_or(HOST_TIMEOUT));
    one.tcp_user_timeout(config.get_tcp_user_timeout().copied().unwrap_or(UNACKNOWLEDGED));
    one.keepalives_idle(Duration::from_secs(10));
    one.keepalives_interval(Duration::from_secs(5));
    one.keepalives_retries(3);
    one.target_session_attrs(match config.get_target_session_attrs() {
        // Of several hosts the one that takes writes; of one host what it is, for a failover may make it that.
        TargetSessionAttrs::Any if config.get_hosts().len() > 1 => TargetSessionAttrs::ReadWrite,
        asked => asked,
    });
    Ok(one)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
