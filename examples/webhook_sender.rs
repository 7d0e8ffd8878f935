//! A webhook sender: tells nice-knovvu that a call has ended, and tries again until that is safe on its disk.
//!
//! ```sh
//! cargo run -p nice-knovvu --example webhook_sender -- http://127.0.0.1:8085 TOKEN_FILE CONTACT_ID
//! ```
//!
//! The address is `[events] webhook_listen`, the file holds what `[events] webhook_token` is.

use std::error::Error;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// Who has not been heard by then gives up. The call is not lost: the poll, or the nightly comparison, finds it.
const PATIENCE: Duration = Duration::from_secs(300);

/// The wait before another try, where the answer does not name one.
const PAUSE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, token_file, contact_id] = arguments.as_slice() else {
        return Err("usage: webhook_sender http://HOST:PORT TOKEN_FILE CONTACT_ID".into());
    };
    // From a file: what stands on a command line can be read by everybody on the machine.
    let token = std::fs::read_to_string(token_file)?;
    let tries = send(server, token.trim(), contact_id).await?;
    println!("taken, at try {tries}");
    Ok(())
}

/// Sends the end of one call. How many tries it took.
pub(crate) async fn send(server: &str, token: &str, contact_id: &str) -> Result<u32, Box<dyn Error>> {
    // reqwest is built without a provider of cryptography; this fails only where one is chosen already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder().timeout(Duration::from_secs(20)).build()?;
    // Only `contactId` is mandatory. `agentId`, `masterContactId` and `endedAt` save a question to NICE where known.
    let event = json!({ "eventType": "ContactEnded", "contactId": contact_id });
    let begun = Instant::now();
    for tries in 1.. {
        let sent = client.post(format!("{server}/nice/events/contact-ended")).bearer_auth(token).json(&event).send();
        let wait = match sent.await {
            // Only now the event is safe.
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => return Ok(tries),
            // 400, 401, 413: the same request would be refused again.
            Ok(answer) if answer.status().is_client_error() && answer.status() != StatusCode::REQUEST_TIMEOUT => {
                return Err(format!("refused for good: {} {}", answer.status(), answer.text().await?).into());
            }
            Ok(answer) => {
                let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                seconds.map_or(PAUSE, Duration::from_secs)
            }
            // Nobody listens, or the connection broke. To send an event twice does no harm.
            Err(_) => PAUSE,
        };
        if begun.elapsed() + wait > PATIENCE {
            return Err(format!("not taken within {tries} tries").into());
        }
        sleep(wait).await;
    }
    unreachable!("the tries have no end")
}
