//! Where the queue is. One file may name RabbitMQ and Fluvio, so that what waits can be moved from one to the other.

use secrecy::{ExposeSecret, SecretString};

use super::{
    settings::QueueConfig,
    value::{QueueKind, host_port},
};

/// What the address of RabbitMQ begins with.
pub(super) const AMQP: [&str; 2] = ["amqp://", "amqps://"];

impl QueueConfig {
    /// Where RabbitMQ is, be it the queue or the one beside it.
    pub(crate) fn rabbitmq(&self) -> Option<&SecretString> {
        self.url.as_ref().filter(|url| self.kind != QueueKind::Fluvio || is_amqp(url))
    }

    /// Where Fluvio is; none: its profile says so. `url` may name it too, as long as no other key does: the key
    /// `fluvio` is the younger one.
    #[cfg_attr(not(feature = "fluvio"), allow(dead_code, reason = "nobody asks for it"))]
    pub(crate) fn cluster(&self) -> Option<String> {
        let by_url = || self.url_of_fluvio()?.ok();
        self.fluvio.clone().or_else(by_url)
    }

    /// The address of Fluvio that `url` names, if it is meant to.
    fn url_of_fluvio(&self) -> Option<Result<String, String>> {
        let url = self.url.as_ref().filter(|url| self.kind == QueueKind::Fluvio && !is_amqp(url))?;
        Some(host_port(url.expose_secret()))
    }

    /// The key that does not go with the others, and why. The fault does not repeat `url`: it may hold a password.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let names = |key: &str| format!("[queue] {key} names the cluster already; remove one of the two");
        match (self.url_of_fluvio(), &self.fluvio, &self.profile) {
            (Some(Err(_)), ..) => {
                let schemes = AMQP.join(" or ");
                let where_to = "the cluster is named by [queue] profile, or by host:port in [queue] fluvio";
                Some(("url", format!("with kind = \"fluvio\" it is RabbitMQ's and begins with {schemes}; {where_to}")))
            }
            (Some(Ok(_)), Some(_), _) => Some(("url", names("fluvio"))),
            (Some(Ok(_)), None, Some(_)) => Some(("url", names("profile"))),
            (None, Some(_), Some(_)) => Some(("profile", names("fluvio"))),
            _ => None,
        }
    }
}

fn is_amqp(url: &SecretString) -> bool {
    AMQP.iter().any(|scheme| url.expose_secret().starts_with(scheme))
}
