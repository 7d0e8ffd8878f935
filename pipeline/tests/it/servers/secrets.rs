//! Canaries: the secrets of all servers and of NICE, and what NICE tells of people, go through a day full of faults,
//! with everything logged that can be logged, and turn up nowhere but where they belong.

use nice_sim::{CallSpec, Faults};

use super::bed::{POSTGRES_PASSWORD, RABBITMQ_PASSWORD, Role, SEAL_KEY, ServerBed, terminate};
use super::calls::small;
use super::poison::publish;
use crate::secrets::leaks;

const CLIENT_SECRET: &str = "canary+client/secret==";
const KEY_SECRET: &str = "canary+key/secret&x==";
const FIRST_NAME: &str = "Canarina";
const LAST_NAME: &str = "Vogelsang-Ö";

/// Customer numbers all begin so.
const NUMBER: &str = "+9055512345";

fn canaries(bed: &ServerBed) -> Vec<(&'static str, String)> {
    [
        ("password of PostgreSQL", POSTGRES_PASSWORD),
        ("password of RabbitMQ", RABBITMQ_PASSWORD),
        ("secret of S3", bed.servers.s3.secret_key()),
        ("seal key", SEAL_KEY),
        ("client secret", CLIENT_SECRET),
        ("access key secret", KEY_SECRET),
        ("bearer token", "eyJhbGciOi"),
        ("customer number", NUMBER),
        ("first name", FIRST_NAME),
        ("last name", LAST_NAME),
        ("login", "@tenant.example"),
        ("signed link", "signature="),
        ("signed request", "Signature="),
        ("media path", "_media/"),
    ]
    .map(|(name, text)| (name, text.to_owned()))
    .into()
}

fn place(bed: &ServerBed, count: usize) -> Vec<i64> {
    let agents = bed.sim().group(1001);
    let call = |number: usize| {
        // By the canary agent and one of the others in turn, in and out.
        let agent = agents[agents.len() - 1 - number % 2];
        let customer = Some(format!("{NUMBER}{number:02}"));
        let spec = CallSpec { outbound: number.is_multiple_of(3), customer, ..CallSpec::new(agent) };
        bed.sim().add_call(spec).contact_ids[0]
    };
    (0..count).map(call).collect()
}

/// What the commands of an operator say, right and wrong.
fn said(bed: &ServerBed, ids: &[i64]) -> Vec<(String, String)> {
    let id = ids[0].to_string();
    let mut commands: Vec<(Role, Vec<&str>)> =
        ["status", "status --json", "dead-letters list", "check", "check --settings", "run --config nowhere"]
            .map(|command| (Role::Both, command.split(' ').collect()))
            .into();
    commands.extend([(Role::Both, vec!["trace", &id]), (Role::Both, vec!["trace", &id, "--json"])]);
    // What lies in the queue and is no message of ours is shown as it came, to the operator who asks for it.
    let letters = bed.json(&["dead-letters", "list", "--json"]);
    let ours = letters.as_array().unwrap().iter().find(|letter| letter["conversation_id"].is_string());
    let ours = ours.expect("a call became a dead letter")["id"].to_string();
    commands.extend([
        (Role::Both, vec!["dead-letters", "show", &ours]),
        (Role::Both, vec!["dead-letters", "show", &ours, "--json"]),
    ]);
    for command in ["migrate", "settings show", "settings show --json", "settings check"] {
        commands.push((Role::Owner, command.split(' ').collect()));
    }
    let run = |(role, arguments): (Role, Vec<&str>)| (arguments.join(" "), bed.ended(role, &arguments).said());
    commands.into_iter().map(run).collect()
}

/// A day with every fault, logged in this format; where a canary was seen.
async fn day(bed: &mut ServerBed, format: &str) -> Vec<String> {
    bed.set("LOG__FORMAT", format);
    bed.set("LOG__FILTER", "trace");
    let canaries = canaries(bed);
    let producer = bed.start(Role::Producer, &format!("producer-{format}"), &[]);
    let mut services = vec![producer, bed.consumer(&format!("consumer-{format}"))];
    for service in &mut services {
        service.ready().await;
    }
    bed.sim().set_faults(Faults::all(1801));
    let ids = place(bed, 12);
    let proxies = &bed.proxies;
    for proxy in [&proxies.postgres, proxies.rabbitmq(), &proxies.s3] {
        proxy.cut();
        proxy.refuse(true);
        place(bed, 2);
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        proxy.refuse(false);
    }
    let poison = format!(r#"{{"schema":1,"from":"{NUMBER}00","name":"{FIRST_NAME}","tenantId":"{NUMBER}"}}"#);
    publish(bed, "live", &[poison.into_bytes()]).await;
    bed.quiet().await;
    bed.sim().set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
    place(bed, 2);
    bed.quiet().await;
    bed.sim().set_faults(Faults::none());

    let mut found = Vec::new();
    for service in &services {
        for path in ["/metrics", "/readyz", "/api/v1/status"] {
            found.extend(leaks(path, &service.get(path).await.expect("it answers").1, &canaries));
        }
    }
    for (command, text) in said(bed, &ids) {
        found.extend(leaks(&command, &text, &canaries));
    }
    for (key, value) in [
        ("QUEUE__URL", format!("amqp://nice:{RABBITMQ_PASSWORD}@127.0.0.1:1/%2f")),
        ("CATALOG__URL", format!("postgres://nice:{POSTGRES_PASSWORD}@127.0.0.1:1/knovvu")),
        ("CATALOG__URL", format!("postgres://nice:{POSTGRES_PASSWORD}@{}/nobodys", bed.proxies.postgres.address())),
        ("CATALOG__URL", POSTGRES_PASSWORD.to_owned()),
        ("QUEUE__URL", RABBITMQ_PASSWORD.to_owned()),
        ("CATALOG__SEAL_KEY", format!("{SEAL_KEY}0")),
    ] {
        let mut command = bed.command(Role::Both, &["check"]);
        command.env(format!("NICE_KNOVVU_{key}"), value);
        found.extend(leaks(key, &crate::harness::Ended::of(command).said(), &canaries));
    }
    let logs: String = services.iter().map(|service| service.logged()).collect();
    terminate(services);
    assert!(logs.len() > 100_000, "everything is logged");
    println!("{format}: {} lines, {} bytes", logs.lines().count(), logs.len());
    found.extend(leaks(&format!("log in {format}"), &logs, &canaries));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_server_no_number_and_no_name_leaves_its_place() {
    let mut config = small(1801, 0);
    config.tenant.client_secret = CLIENT_SECRET.to_owned();
    config.tenant.access_key_secret = KEY_SECRET.to_owned();
    let mut bed = ServerBed::new(config).await;
    let canary = bed.sim().add_agent(FIRST_NAME, LAST_NAME, 501);
    let mut group = bed.sim().group(1001);
    group.push(canary);
    bed.sim().set_group(1001, group);

    let mut found = day(&mut bed, "text").await;
    let client_id = bed.sim().config().tenant.client_id.clone();
    bed.set_nice("acme", &[("auth_flow", "oauth"), ("client_id", &client_id), ("client_secret", CLIENT_SECRET)]);
    found.extend(day(&mut bed, "json").await);
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));

    // The canaries did sing: they stand where they belong.
    let agents = bed.ended(Role::Both, &["agents", "list"]).stdout;
    assert!(leaks("agents list", &agents, &canaries(&bed)).len() >= 3, "{agents}");
    let numbers = bed.psql("select customer_number from conversations").await;
    assert!(numbers.contains(NUMBER), "{numbers}");
}
