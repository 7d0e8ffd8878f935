//! `test-servers`: PostgreSQL, RabbitMQ and S3 for a look by hand, until Ctrl-C.
//!
//! Prints the settings that reach them, to be appended to a settings file. What they hold ends with them.

use test_servers::{Postgres, RabbitMq, S3};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let (postgres, rabbitmq, s3) = tokio::join!(Postgres::start(), RabbitMq::start(), S3::start());
    let (database, bucket) = tokio::join!(postgres.database(), s3.bucket());
    println!("[queue]\nkind = \"rabbitmq\"\nurl = \"{}\"\n", rabbitmq.url());
    println!("[catalog]\nkind = \"postgres\"\nurl = \"{database}\"\nseal_key = \"{}\"\n", "5e".repeat(32));
    println!("[recordings]\nkind = \"s3\"\nendpoint = \"{}\"\nbucket = \"{bucket}\"", s3.endpoint());
    println!("access_key_id = \"{}\"\nsecret_access_key = \"{}\"", s3.access_key(), s3.secret_key());
    eprintln!("servers run until Ctrl-C; RabbitMQ's management: {} (guest, guest)", rabbitmq.management_url());
    tokio::signal::ctrl_c().await
}
