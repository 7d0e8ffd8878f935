//! The commands of an operator on servers, and what is said where a server or a setting is wrong.

use std::time::{Duration, Instant};

use nice_sim::CallSpec;
use serde_json::Value;

use super::bed::{POSTGRES_PASSWORD, RABBITMQ_PASSWORD, Role, ServerBed, terminate};
use super::calls::small;
use super::machines::Servers;
use crate::harness::{Ended, PATIENCE};

const WRONG: &str = "canary-of-a-wrong-secret";

/// Runs each service, which must refuse to start.
fn refused(bed: &ServerBed) -> Vec<Ended> {
    let services = [(Role::Producer, "producer"), (Role::Consumer, "consumer"), (Role::Both, "run")];
    services.map(|(role, service)| bed.ended(role, &[service])).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_refuse_tables_that_are_missing_too_old_or_too_new() {
    let bed = ServerBed::bare(Servers::shared().await).await;
    let named = |ended: Ended, remedy: &str| {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let line = ended.stderr.lines().last().unwrap();
        assert!(line.contains(remedy), "{line}");
    };
    for ended in refused(&bed) {
        named(ended, "nice-knovvu migrate");
    }
    named(bed.ended(Role::Owner, &["settings", "show"]), "nice-knovvu migrate");

    bed.migrate().await;
    bed.psql("create table kept as select * from refinery_schema_history").await;
    bed.psql("delete from refinery_schema_history where version = (select max(version) from kept)").await;
    for ended in refused(&bed) {
        named(ended, "nice-knovvu migrate");
    }
    bed.psql("delete from refinery_schema_history; insert into refinery_schema_history select * from kept").await;
    bed.psql("insert into refinery_schema_history values (9999, 'of_tomorrow', now()::text, '1')").await;
    for ended in refused(&bed) {
        named(ended, "upgrade");
    }
    named(bed.ended(Role::Owner, &["migrate"]), "upgrade");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_by_several_at_once_is_one() {
    let bed = ServerBed::bare(Servers::shared().await).await;
    std::thread::scope(|scope| {
        let migrate = || bed.ended(Role::Owner, &["migrate"]);
        let running: Vec<_> = (0..3).map(|_| scope.spawn(migrate)).collect();
        for ended in running {
            let ended = ended.join().unwrap();
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
    });
    let again = bed.ended(Role::Owner, &["migrate"]);
    assert!(again.code == Some(0) && again.stdout.contains("already"), "{again:?}");
    let embedded = {
        let mut command = bed.command(Role::Owner, &["migrate"]);
        command.env("NICE_KNOVVU_CATALOG__KIND", "embedded");
        Ended::of(command)
    };
    assert!(embedded.code == Some(2) && embedded.stderr.contains("[catalog] kind"), "{embedded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_masked_lie_sealed_and_are_refused_by_the_name_of_the_field() {
    let mut config = small(1701, 0);
    config.tenant.access_key_secret = WRONG.to_owned();
    let bed = ServerBed::on(Servers::shared().await, config).await;
    let show = ["settings", "show", "--tenant", "acme"];
    let shown = bed.ended(Role::Owner, &show);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for text in ["access_key_secret", "********", "media_hosts", bed.sim().base_url()] {
        assert!(shown.stdout.contains(text), "{text}: {shown:?}");
    }
    let json = bed.ended(Role::Owner, &["settings", "show", "--json"]);
    assert!(json.code == Some(0) && serde_json::from_str::<serde_json::Value>(&json.stdout).is_ok(), "{json:?}");
    let row = bed.psql("select * from nice_settings").await;
    for text in [shown.said(), json.said(), row] {
        assert!(!text.contains(WRONG), "{text}");
    }

    let good = "access_key_id = \"x\"\naccess_key_secret = \"canary-of-a-wrong-secret\"\ngroup = \"g\"\n";
    for (table, field) in [
        ("".to_owned(), "[nice]"),
        ("nonsense".to_owned(), "stdin"),
        (format!("[nice]\nauth_flow = \"access_key\"\n{good}issuer = \"ftp://x\""), "issuer"),
        (format!("[nice]\nauth_flow = \"access_key\"\n{good}acess_key = \"x\""), "acess_key"),
        (format!("[nice]\nauth_flow = \"access_key\"\n{good}media_hosts = [\"*\"]"), "media_hosts"),
        (
            format!("[nice]\nauth_flow = \"access_key\"\n{good}private_media_hosts = [\"elsewhere.example\"]"),
            "private_media_hosts",
        ),
        (format!("[nice]\nauth_flow = \"password\"\n{good}"), "auth_flow"),
        (format!("[nice]\nauth_flow = \"oauth\"\n{good}"), "client_secret"),
        ("[nice]\nauth_flow = \"access_key\"\naccess_key_id = \"x\"\ngroup = \"g\"".to_owned(), "access_key_secret"),
        (format!("[nice]\nauth_flow = \"access_key\"\n{good}[queue]\nkind = \"rabbitmq\""), "queue"),
    ] {
        let ended = bed.fed(Role::Owner, &["settings", "set"], &table);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{table}: {ended:?}");
        assert!(ended.stderr.contains(field) && !ended.stderr.contains(WRONG), "{field}: {ended:?}");
    }
    assert_eq!(bed.ended(Role::Owner, &show).stdout, shown.stdout, "a refused text has changed something");
    let strange = bed.ended(Role::Owner, &["settings", "show", "--tenant", "nobody"]);
    assert!(strange.code == Some(1) && strange.stderr.contains("settings set"), "{strange:?}");
    let hostile = bed.ended(Role::Owner, &["settings", "show", "--tenant", "../x"]);
    assert_eq!(hostile.code, Some(2), "{hostile:?}");

    let check = bed.ended(Role::Owner, &["settings", "check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    bed.set_nice("acme", &[("access_key_secret", "another")]);
    let check = bed.ended(Role::Owner, &["settings", "check"]);
    assert!(check.code == Some(3) && check.stdout.contains("401"), "{check:?}");
    let mut other_key = bed.command(Role::Owner, &["settings", "check"]);
    other_key.env("NICE_KNOVVU_CATALOG__SEAL_KEY", "00".repeat(32));
    let check = Ended::of(other_key);
    assert!(check.code != Some(0) && check.said().contains("seal_key"), "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_set_once_nice_takes_them_and_those_of_before_stay_till_then() {
    let bed = ServerBed::new(small(1707, 0)).await;
    let table = |changes: &[(&str, &str)]| {
        let mut settings = bed.sim().settings();
        settings.retain(|(key, _)| !changes.iter().any(|(changed, _)| changed == key));
        settings.extend(changes.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let line = |(key, value): &(&str, String)| match *key {
            "media_hosts" => format!("{key} = [{value:?}]\n"),
            _ => format!("{key} = {value:?}\n"),
        };
        format!("\u{feff}[nice]\n{}", settings.iter().map(line).collect::<String>())
    };
    let shown = || bed.ended(Role::Owner, &["settings", "show"]).stdout;
    let (set, before) = (["settings", "set"], shown());
    let nowhere = "http://127.0.0.1:1";
    let away = &[("issuer", nowhere), ("auth_url", nowhere), ("acd_url", nowhere), ("facade_url", nowhere)][..];
    for (changes, code, names) in [
        (&[("access_key_secret", WRONG)][..], 1, "correct key"),
        (&[("group", "999999")], 1, "no such group"),
        (away, 3, "issuer"),
    ] {
        let ended = bed.fed(Role::Owner, &set, &table(changes));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
        for text in [names, "--force", "settings of before stay"] {
            assert!(ended.stderr.contains(text) && !ended.stderr.contains(WRONG), "{text}: {ended:?}");
        }
        assert_eq!(shown(), before, "{changes:?}");
    }
    let check = bed.ended(Role::Owner, &["settings", "check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    let ended = bed.fed(Role::Owner, &set, &table(&[("group", "Knovvu")]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(shown().contains("Knovvu"), "{}", shown());
    let ended = bed.fed(Role::Owner, &["settings", "set", "--force"], &table(away));
    assert!(ended.code == Some(0) && shown().contains(nowhere), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_of_each_server_whether_it_answers() {
    let bed = ServerBed::new(small(1702, 0)).await;
    let healthy = bed.ended(Role::Both, &["check"]);
    assert_eq!((healthy.code, healthy.stderr.as_str()), (Some(0), ""), "{healthy:?}");
    for system in ["settings", "queue", "catalog", "recording store", "nice", "media playback"] {
        let line = healthy.stdout.lines().find(|line| line.starts_with(system));
        assert!(line.is_some_and(|line| line.ends_with("ok")), "{system}: {}", healthy.stdout);
    }

    let (postgres, rabbitmq) = (bed.proxies.postgres.address(), bed.proxies.rabbitmq().address());
    let catalog = bed.catalog_url(Role::Both);
    let nowhere = "127.0.0.1:1";
    for (key, value, system) in [
        ("QUEUE__URL", format!("amqp://nice:{RABBITMQ_PASSWORD}@{nowhere}/%2f"), "queue"),
        ("QUEUE__URL", format!("amqp://nice:{WRONG}@{rabbitmq}/%2f"), "queue"),
        ("CATALOG__URL", catalog.replace(&postgres.to_string(), nowhere), "catalog"),
        ("CATALOG__URL", catalog.replace(POSTGRES_PASSWORD, WRONG), "catalog"),
        ("CATALOG__URL", format!("{catalog}x"), "catalog"),
        ("RECORDINGS__ENDPOINT", format!("http://{nowhere}"), "recording store"),
        ("RECORDINGS__SECRET_ACCESS_KEY", WRONG.to_owned(), "recording store"),
        ("RECORDINGS__ACCESS_KEY_ID", "nobody".to_owned(), "recording store"),
        ("RECORDINGS__BUCKET", "nobodys-bucket".to_owned(), "recording store"),
    ] {
        let mut command = bed.command(Role::Both, &["check"]);
        command.env(format!("NICE_KNOVVU_{key}"), value);
        let ended = Ended::of(command);
        assert_eq!(ended.code, Some(3), "{key}: {ended:?}");
        let line = ended.stdout.lines().find(|line| line.starts_with(system));
        let line = line.unwrap_or_else(|| panic!("{key}: no line of {system}: {ended:?}"));
        assert!(!line.ends_with("ok") && ended.stderr.contains(system), "{ended:?}");
        let section = key.split_once("__").unwrap().0.to_lowercase();
        // The last word is not folded.
        assert!(ended.stderr.contains(&format!("[{section}] ")), "the setting is not named: {ended:?}");
        for secret in [WRONG, POSTGRES_PASSWORD, RABBITMQ_PASSWORD, bed.servers.s3.secret_key()] {
            assert!(!ended.said().contains(secret), "{key}: {ended:?}");
        }
        println!("{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_answered_with_and_without_a_producer() {
    let bed = ServerBed::new(small(1703, 0)).await;
    let (producer, consumer) = (bed.producer(), bed.consumer("consumer"));
    let id = bed.sim().add_call(CallSpec::new(bed.sim().group(1001)[0])).contact_ids[0].to_string();
    bed.quiet().await;
    let stages = |trace: &Value| -> Vec<String> {
        let hops = trace["hops"].as_array().unwrap();
        hops.iter().map(|hop| hop["stage"].as_str().unwrap().to_owned()).collect()
    };
    // The timeline is written a moment later than the conversation is ready.
    let begun = Instant::now();
    while !stages(&bed.json(&["trace", &id, "--json"])).iter().any(|stage| stage == "upload") {
        assert!(begun.elapsed() < PATIENCE, "the timeline is not written\n{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ask = || {
        let trace = bed.json(&["trace", &id, "--json"]);
        assert_eq!(trace["state"], "ready", "{trace:#}");
        let stages = stages(&trace);
        for stage in ["enqueue", "fetch_metadata", "download_recording", "persist", "upload"] {
            assert!(stages.iter().any(|known| known == stage), "{stage}: {stages:?}");
        }
        let agents = bed.json(&["agents", "list", "--json"]);
        assert_eq!(agents.as_array().unwrap().len(), 12, "{agents}");
        let status = bed.json(&["status", "--json"]);
        assert_eq!(status["conversations"]["ready"], 1, "{status:#}");
        assert_eq!(status["backlog"]["live"], 0, "{status:#}");
        [trace["conversation"].clone(), agents, status["conversations"].clone()]
    };
    let running = ask();
    terminate([producer]);
    assert_eq!(ask(), running, "the answers differ");
    terminate([consumer]);
}
