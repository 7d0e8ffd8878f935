//! A worker of the analysis queue: takes conversations, analyses each, and tells what became of it.
//!
//! ```sh
//! cargo run -p nice-knovvu --example analysis_worker -- postgres://worker:password@127.0.0.1/knovvu [--most N]
//! ```
//!
//! Any number may run. Without `--most` it works until it is ended.

use std::error::Error;
use std::future::poll_fn;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// A notification may be lost with its connection; the table is the truth.
const LOOK: Duration = Duration::from_secs(60);

/// Who shows no sign of life for so long is taken for dead: much longer than the time between two signs of life.
const DEAD_AFTER: &str = "select release_analysis('30 minutes')";

/// Between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Why a conversation was not analysed.
enum Fault {
    /// It cannot be, and not the next time either.
    Unfit(&'static str),
    /// Something else is out of order.
    Elsewhere(Box<dyn Error>),
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, most) = match (arguments.next(), arguments.next().as_deref(), arguments.next()) {
        (Some(url), None, _) => (url, None),
        (Some(url), Some("--most"), Some(most)) => (url, Some(most.parse()?)),
        _ => return Err("usage: analysis_worker postgres://user:password@host/database [--most N]".into()),
    };
    println!("{} conversations", run(&url, most).await?);
    Ok(())
}

/// Works until `most` conversations are done or none waits; without it, for ever. How many it has taken.
pub(crate) async fn run(url: &str, most: Option<u64>) -> Result<u64, Box<dyn Error>> {
    // On the same machine; elsewhere TLS takes the place of `NoTls`.
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (announce, mut announced) = mpsc::channel(1);
    let connection = async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(_) = message? {
                // One that waits is enough to wake up.
                announce.try_send(()).ok();
            }
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    let working = async {
        client.batch_execute("listen analysis_queue").await?;
        let (mut done, mut released) = (0, None::<Instant>);
        while most.is_none_or(|most| done < most) {
            if released.is_none_or(|at| at.elapsed() >= LOOK) {
                client.query_one(DEAD_AFTER, &[]).await?;
                released = Some(Instant::now());
            }
            // One at a time: what this worker holds and has not begun would wait for it.
            let claim = "select conversation_id, claim from claim_analysis(1, 'rust')";
            match client.query_opt(claim, &[]).await? {
                Some(row) => {
                    work(&client, row.get(0), row.get(1)).await?;
                    done += 1;
                }
                None if most.is_some() => break,
                None => drop(timeout(LOOK, announced.recv()).await),
            }
        }
        Ok(done)
    };
    tokio::select! {
        worked = working => worked,
        ended = connection => Err(ended.err().map_or_else(|| "the connection ended".into(), Into::into)),
    }
}

/// Analyses one conversation, and settles the claim in one of three ways.
async fn work(client: &Client, conversation: i64, claim: Timestamp) -> Result<(), tokio_postgres::Error> {
    let analysed = tokio::select! {
        analysed = analyse(client, conversation) => analysed,
        lost = show_signs_of_life(client, conversation, claim) => {
            eprintln!("{conversation}: another worker has it, or it was erased");
            return lost;
        }
    };
    match analysed {
        Ok(()) => {
            let finished = client.query_one("select finish_analysis($1, $2)", &[&conversation, &claim]).await?;
            if !finished.get::<_, bool>(0) {
                eprintln!("{conversation}: finished too late");
            }
        }
        Err(Fault::Unfit(reason)) => {
            let fail = "select fail_analysis($1, $2, $3, for_good => true)";
            client.query_one(fail, &[&conversation, &claim, &reason]).await?;
        }
        // Not this conversation's fault: it goes back uncounted, and whoever takes it next should not be at once.
        Err(Fault::Elsewhere(error)) => {
            eprintln!("{conversation}: {error}");
            client.query_one("select release_analysis($1, $2)", &[&conversation, &claim]).await?;
            sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

/// Returns when the claim is over.
async fn show_signs_of_life(client: &Client, conversation: i64, claim: Timestamp) -> Result<(), tokio_postgres::Error> {
    let mut signs = interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
    loop {
        signs.tick().await;
        let extended = client.query_one("select extend_analysis($1, $2)", &[&conversation, &claim]).await?;
        if !extended.get::<_, bool>(0) {
            return Ok(());
        }
    }
}

/// Stands for the analysis, which must be repeatable: a worker may die behind it and before `finish_analysis`.
async fn analyse(client: &Client, conversation: i64) -> Result<(), Fault> {
    let recordings =
        "select bucket, object_key, size_bytes, sha256 from recordings where conversation_id = $1 order by position";
    let recordings =
        client.query(recordings, &[&conversation]).await.map_err(|error| Fault::Elsewhere(error.into()))?;
    for recording in recordings {
        if recording.get::<_, i64>("size_bytes") == 0 {
            return Err(Fault::Unfit("a recording is empty"));
        }
        // Here the object is read from the store, and its SHA-256 compared.
    }
    Ok(())
}
