//! The peer that one would write in Rust in an afternoon: lapin, tokio-postgres, reqwest; no dedupe, no retries.
//!
//! It runs as a process of its own (`bench naive`), with its settings as `PEER_*` in the environment like the other
//! peers. What it measures is how far the daemon's flow machinery, dedupe and audit are from the bare calls.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// As many as the other peers have; each commits by itself, and PostgreSQL groups what comes at once.
const DATABASE_CONNECTIONS: usize = 16;

const INSERT: &str = "INSERT INTO conversations (external_id, metadata, object_key, sha256, size_bytes) \
                      VALUES ($1, $2, $3, $4, $5)";

struct Peer {
    http: Client,
    token: String,
    source: String,
    database: Vec<(tokio_postgres::Client, tokio_postgres::Statement)>,
    turn: AtomicUsize,
    analysis: Channel,
    output: String,
    confirmed: Option<Mutex<std::fs::File>>,
}

fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(format!("PEER_{name}")).with_context(|| format!("PEER_{name} is not set"))
}

/// Works until it is killed.
pub(crate) async fn run() -> anyhow::Result<()> {
    let in_flight: u16 = setting("IN_FLIGHT")?.parse()?;
    let connection = Connection::connect(&setting("AMQP")?, ConnectionProperties::default()).await?;
    let (ids, analysis) = (connection.create_channel().await?, connection.create_channel().await?);
    ids.basic_qos(in_flight, BasicQosOptions::default()).await?;
    analysis.confirm_select(ConfirmSelectOptions::default()).await?;
    let http = Client::builder().no_proxy().build()?;
    let source = setting("SOURCE")?;
    let keys = json!({ "accessKeyId": setting("KEY_ID")?, "accessKeySecret": setting("KEY_SECRET")? });
    let url = format!("{source}/authentication/v1/token/access-key");
    let token: Value = http.post(url).json(&keys).send().await?.error_for_status()?.json().await?;
    let token = token["access_token"].as_str().context("no token")?.to_owned();
    let mut database = Vec::new();
    for _ in 0..DATABASE_CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(&setting("POSTGRES")?, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let insert = client.prepare(INSERT).await?;
        database.push((client, insert));
    }
    let confirmed = match setting("CONFIRMED")? {
        path if path.is_empty() => None,
        path => Some(Mutex::new(std::fs::File::options().create(true).append(true).open(path)?)),
    };
    let (turn, output) = (AtomicUsize::new(0), setting("OUTPUT")?);
    let peer = Arc::new(Peer { http, token, source, database, turn, analysis, output, confirmed });

    let mut deliveries = ids
        .basic_consume(setting("INPUT")?.into(), "".into(), BasicConsumeOptions::default(), Default::default())
        .await?;
    println!("ready");
    while let Some(delivery) = deliveries.next().await {
        let (peer, delivery) = (Arc::clone(&peer), delivery?);
        tokio::spawn(async move {
            let worked = peer.conversation(std::str::from_utf8(&delivery.data)?).await;
            if let Err(error) = &worked {
                eprintln!("{error:#}");
            }
            worked?;
            delivery.ack(BasicAckOptions::default()).await?;
            anyhow::Ok(())
        });
    }
    Ok(())
}

impl Peer {
    async fn conversation(&self, id: &str) -> anyhow::Result<()> {
        let metadata = self.get(format!("{}/inContactAPI/services/v33.0/contacts/{id}", self.source)).await?;
        let playback = self
            .get(format!(
                "{}/media-playback/v1/contacts?acd-call-id={id}&media-type=voice-only&exclude-waveforms=true\
                 &exclude-qm-categories=true&isDownload=false",
                self.source
            ))
            .await?;
        let link = playback["interactions"][0]["data"]["fileToPlayUrl"].as_str().context("no link")?;
        let recording = self.http.get(link).send().await?.error_for_status()?.bytes().await?;
        let sha256 = hex::encode(Sha256::digest(&recording));
        let key = format!("{id}/0.mp4");
        let (database, insert) = &self.database[self.turn.fetch_add(1, Ordering::Relaxed) % DATABASE_CONNECTIONS];
        database.execute(insert, &[&id, &metadata, &key, &sha256, &(recording.len() as i64)]).await?;
        self.put(&key, recording, &sha256).await?;
        let published = self.analysis.basic_publish(
            "".into(),
            self.output.as_str().into(),
            BasicPublishOptions::default(),
            id.as_bytes(),
            BasicProperties::default().with_delivery_mode(2),
        );
        ensure!(published.await?.await?.is_ack(), "not confirmed");
        if let Some(confirmed) = &self.confirmed {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
            writeln!(confirmed.lock().unwrap_or_else(PoisonError::into_inner), "{id} {now}")?;
        }
        Ok(())
    }

    async fn get(&self, url: String) -> anyhow::Result<Value> {
        let request = self.http.get(url).bearer_auth(&self.token).header("accept", "application/json");
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// One signed PUT (AWS signature 4).
    async fn put(&self, key: &str, body: bytes::Bytes, sha256: &str) -> anyhow::Result<()> {
        let url = reqwest::Url::parse(&format!("{}/{}/{key}", setting("S3")?, setting("BUCKET")?))?;
        let host =
            format!("{}:{}", url.host_str().context("no host")?, url.port_or_known_default().context("no port")?);
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/us-east-1/s3/aws4_request", &now[..8]);
        let signed = "host;x-amz-content-sha256;x-amz-date;x-amz-meta-sha256";
        let canonical = format!(
            "PUT\n{}\n\nhost:{host}\nx-amz-content-sha256:{sha256}\nx-amz-date:{now}\nx-amz-meta-sha256:{sha256}\n\n\
             {signed}\n{sha256}",
            url.path()
        );
        let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", setting("S3_SECRET")?).into_bytes();
        for part in scope.split('/').chain([text.as_str()]) {
            key = Hmac::<Sha256>::new_from_slice(&key)?.chain_update(part).finalize().into_bytes().to_vec();
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={}",
            setting("S3_KEY")?,
            hex::encode(key)
        );
        let request = self.http.put(url).header("x-amz-content-sha256", sha256).header("x-amz-date", now);
        let request = request.header("x-amz-meta-sha256", sha256).header("authorization", authorization);
        request.body(body).send().await?.error_for_status()?;
        Ok(())
    }
}
