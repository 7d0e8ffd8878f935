//! Settings that are wrong: one clear line and exit code 2 before anything is touched; or, where only the attempt
//! can tell, exit code 1.

use std::net::TcpListener;
use std::path::Path;

use crate::harness::{Ended, executable};

/// Settings that would do, as lines of sections; a case replaces or adds lines.
const LEAST: &[Line] = &[
    ("tenant.id", "\"acme\""),
    ("nice.auth_flow", "\"access_key\""),
    ("nice.access_key_id", "\"key\""),
    ("nice.access_key_secret", "\"canary-access-key-secret\""),
    ("nice.group", "\"Knovvu\""),
    ("state.dir", "\"data\""),
];

/// Parts of settings for servers.
const POSTGRES: Line = ("catalog.kind", "\"postgres\"");
const SEALED: Line = ("catalog.seal_key", "\"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f\"");
const S3: Line = ("recordings.kind", "\"s3\"");
const S3_AT: Line = ("recordings.endpoint", "\"https://s3.example\"");
const S3_BUCKET: Line = ("recordings.bucket", "\"calls\"");
const S3_ID: Line = ("recordings.access_key_id", "\"k\"");
const S3_SECRET: Line = ("recordings.secret_access_key", "\"canary-s3-secret\"");

/// A key with its section, and a value as TOML.
type Line = (&'static str, &'static str);

/// One way to be wrong.
struct Case {
    name: &'static str,
    /// Lines that are added, or stand instead; an empty one takes the line away.
    lines: &'static [Line],
    environment: &'static [Line],
    /// What one line of stderr must hold.
    says: &'static [&'static str],
}

const fn case(
    name: &'static str,
    lines: &'static [Line],
    environment: &'static [Line],
    says: &'static [&'static str],
) -> Case {
    Case { name, lines, environment, says }
}

const CASES: &[Case] = &[
    case("unknown key in the file", &[("events.pol_interval", "\"15s\"")], &[], &["pol_interval", "poll_interval"]),
    case("unknown section in the file", &[("event.poll", "true")], &[], &["event", "events"]),
    case("key in another case", &[("events.Poll", "true")], &[], &["Poll", "poll"]),
    case(
        "unknown key in the environment",
        &[],
        &[("NICE_KNOVVU_EVENTS__POL_INTERVAL", "15s")],
        &["NICE_KNOVVU_EVENTS__POL_INTERVAL", "NICE_KNOVVU_EVENTS__POLL_INTERVAL"],
    ),
    case(
        "one underscore too few in the environment",
        &[],
        &[("NICE_KNOVVU_NICE_GROUP", "x")],
        &["NICE_KNOVVU_NICE_GROUP", "NICE_KNOVVU_NICE__GROUP"],
    ),
    case("wrong type", &[("events.poll", "\"yes\"")], &[], &["poll", "true or false"]),
    case(
        "wrong type in the environment",
        &[],
        &[("NICE_KNOVVU_EVENTS__POLL", "ja")],
        &["EVENTS__POLL", "true or false"],
    ),
    case("bare-number duration", &[("agents.sync_interval", "600")], &[], &["sync_interval", "600", "unit", "\"10m\""]),
    case(
        "bare-number duration in the environment",
        &[],
        &[("NICE_KNOVVU_FLOW__GRACE", "30")],
        &["NICE_KNOVVU_FLOW__GRACE", "30", "unit"],
    ),
    case("negative duration", &[("flow.grace", "\"-5s\"")], &[], &["grace", "-5s"]),
    case("interval of zero", &[("events.poll_interval", "\"0s\"")], &[], &["poll_interval", "0s"]),
    case("rate without a window", &[("limits.media_playback", "\"150\"")], &[], &["media_playback", "150/5m"]),
    case("share above one", &[("limits.live_reserve", "1.5")], &[], &["live_reserve", "0 to 1"]),
    case("concurrency of zero", &[("consumer.concurrency", "0")], &[], &["concurrency", "1 to 1024"]),
    case(
        "missing secret",
        &[("nice.access_key_secret", "")],
        &[],
        &["access_key_secret", "missing", "access_key_secret_file", "NICE_KNOVVU_NICE__ACCESS_KEY_SECRET"],
    ),
    case("missing tenant", &[("tenant.id", "")], &[], &["[tenant] id", "missing", "NICE_KNOVVU_TENANT__ID"]),
    case(
        "webhook without a token",
        &[("events.webhook", "true")],
        &[],
        &["webhook_token", "missing", "[events] webhook = true"],
    ),
    case(
        "oauth without a client",
        &[("nice.auth_flow", "\"oauth\""), ("nice.client_secret", "\"canary-client-secret\"")],
        &[],
        &["client_id", "missing", "auth_flow = \"oauth\""],
    ),
    case(
        "absent secret file",
        &[("nice.access_key_secret", ""), ("nice.access_key_secret_file", "\"nowhere/canary-path\"")],
        &[],
        &["access_key_secret_file", "does not exist"],
    ),
    case(
        "secret file that is a directory",
        &[("nice.access_key_secret", ""), ("nice.access_key_secret_file", "\".\"")],
        &[],
        &["access_key_secret_file", "cannot be"],
    ),
    case(
        "empty secret file",
        &[("nice.access_key_secret", ""), ("nice.access_key_secret_file", "\"/dev/null\"")],
        &[],
        &["access_key_secret_file", "empty"],
    ),
    case(
        "endless secret file",
        &[("nice.access_key_secret", ""), ("nice.access_key_secret_file", "\"/dev/zero\"")],
        &[],
        &["access_key_secret_file", "larger"],
    ),
    case(
        "value and file both",
        &[("nice.access_key_secret_file", "\"secret\"")],
        &[],
        &["access_key_secret", "both", "remove one"],
    ),
    case("unknown word", &[("nice.group_kind", "\"acdgroup\"")], &[], &["group_kind", "acdgroup", "acd_group"]),
    case("unknown kind of queue", &[("queue.kind", "\"kafka\"")], &[], &["kind", "kafka", "embedded"]),
    case(
        "http to a host that is not this one",
        &[("nice.issuer", "\"http://cxone.niceincontact.com\"")],
        &[],
        &["issuer", "plain http", "https"],
    ),
    case(
        "http to a host that begins as this one",
        &[("nice.acd_url", "\"http://127.0.0.1.evil.example\"")],
        &[],
        &["acd_url", "https"],
    ),
    case(
        "this machine in a disguise",
        &[("nice.acd_url", "\"http://[::ffff:127.0.0.1]:9\"")],
        &[],
        &["acd_url", "https"],
    ),
    case(
        "password in an address",
        &[("nice.auth_url", "\"https://u:canary-password@x.example\"")],
        &[],
        &["auth_url", "password"],
    ),
    case(
        "media host with a scheme",
        &[("nice.media_hosts", "[\"https://a.example\"]")],
        &[],
        &["media_hosts", "https://a.example", "host"],
    ),
    case("every host a media host", &[("nice.media_hosts", "[\"*\"]")], &[], &["media_hosts", "every host"]),
    case("no media host", &[("nice.media_hosts", "[]")], &[], &["media_hosts", "empty"]),
    case(
        "media host on this machine without its port",
        &[("nice.media_hosts", "[\"localhost\"]")],
        &[],
        &["media_hosts", "port"],
    ),
    case("media hosts as one text", &[("nice.media_hosts", "\"a.example\"")], &[], &["media_hosts", "list"]),
    case("tenant with a path in it", &[("tenant.id", "\"../x\"")], &[], &["id", "letters, digits"]),
    case("listen without a port", &[("admin.listen", "\"127.0.0.1\"")], &[], &["listen", "port"]),
    case("no such time zone", &[("reconciliation.timezone", "\"Mars/Base\"")], &[], &["timezone", "Mars/Base"]),
    case("no such time of day", &[("reconciliation.at", "\"25:00\"")], &[], &["at", "25:00"]),
    case("RabbitMQ without its address", &[("queue.kind", "\"rabbitmq\"")], &[], &["[queue] url", "missing"]),
    case(
        "RabbitMQ at an address of another kind",
        &[("queue.kind", "\"rabbitmq\""), ("queue.url", "\"http://u:canary-password@h\"")],
        &[],
        &["[queue] url", "amqp://", "amqps://"],
    ),
    case(
        "RabbitMQ in clear beyond this machine",
        &[("queue.kind", "\"rabbitmq\""), ("queue.url", "\"amqp://u:canary-password@h\"")],
        &[],
        &["[queue] url", "in clear", "amqps://"],
    ),
    case(
        "RabbitMQ with certificates that are not there",
        &[
            ("queue.kind", "\"rabbitmq\""),
            ("queue.url", "\"amqps://u:canary-password@h\""),
            ("queue.ca_file", "\"nowhere.pem\""),
        ],
        &[],
        &["[queue] ca_file", "nowhere.pem", "correct the path"],
    ),
    case(
        "Fluvio at an address of another kind",
        &[("queue.kind", "\"fluvio\""), ("queue.fluvio", "\"https://h:9003\"")],
        &[],
        &["[queue] fluvio", "host with a port"],
    ),
    case(
        "Fluvio at an address that may hold a password",
        &[("queue.kind", "\"fluvio\""), ("queue.url", "\"https://u:canary-password@h\"")],
        &[],
        &["[queue] url", "amqp://", "[queue] fluvio"],
    ),
    case(
        "more partitions than Fluvio is asked for",
        &[("queue.kind", "\"fluvio\""), ("queue.partitions", "65")],
        &[],
        &["[queue] partitions", "65", "from 1 to 64"],
    ),
    case("PostgreSQL without its address", &[SEALED, POSTGRES], &[], &["[catalog] url", "missing"]),
    case(
        "PostgreSQL without the seal key",
        &[POSTGRES, ("catalog.url", "\"postgres://u:canary-password@h/d\"")],
        &[],
        &["[catalog] seal_key", "missing", "NICE_KNOVVU_CATALOG__SEAL_KEY_FILE"],
    ),
    case(
        "PostgreSQL at an address of another kind",
        &[SEALED, POSTGRES, ("catalog.url", "\"mysql://u:canary-password@h/d\"")],
        &[],
        &["[catalog] url", "postgres://"],
    ),
    case(
        "PostgreSQL at an address without a host",
        &[SEALED, POSTGRES, ("catalog.url", "\"postgres:///d\"")],
        &[],
        &["[catalog] url", "no host", "postgres://user:password@host/database"],
    ),
    case("no connection to the database", &[("catalog.connections", "1")], &[], &["connections", "2 to 64"]),
    case(
        "S3 without its bucket",
        &[S3, S3_AT, S3_ID, S3_SECRET],
        &[],
        &["[recordings] bucket", "missing", "[recordings] kind = \"s3\""],
    ),
    case(
        "S3 without its key",
        &[S3, S3_AT, S3_BUCKET, S3_SECRET],
        &[],
        &["[recordings] access_key_id", "missing", "NICE_KNOVVU_RECORDINGS__ACCESS_KEY_ID"],
    ),
    case(
        "S3 at plain http",
        &[S3, ("recordings.endpoint", "\"http://s3.example\""), S3_BUCKET, S3_ID, S3_SECRET],
        &[],
        &["[recordings] endpoint", "plain http"],
    ),
    case(
        "S3 with half of a temporary key in a file",
        &[S3, S3_AT, S3_BUCKET, S3_ID, S3_SECRET, ("recordings.session_token_file", "\"secret\"")],
        &[],
        &["[recordings] session_token", "both in files"],
    ),
    case(
        "S3 with keys in a file that is not there",
        &[S3, S3_AT, S3_BUCKET, ("recordings.credentials_file", "\"nowhere.ini\"")],
        &[],
        &["[recordings] credentials_file", "nowhere.ini", "correct the path"],
    ),
    case(
        "S3 with an endless file of keys",
        &[S3, S3_AT, S3_BUCKET, ("recordings.credentials_file", "\"/dev/zero\"")],
        &[],
        &["[recordings] credentials_file", "/dev/zero", "larger"],
    ),
    case(
        "S3 with certificates that are not there",
        &[S3, S3_AT, S3_BUCKET, S3_ID, S3_SECRET, ("recordings.ca_file", "\"nowhere.pem\"")],
        &[],
        &["[recordings] ca_file", "nowhere.pem", "correct the path"],
    ),
    case("no such encryption", &[("recordings.encryption", "\"aes\"")], &[], &["encryption", "sse-s3", "sse-kms"]),
    case("seal key that is no hex", &[("catalog.seal_key", "\"canary-seal-key\"")], &[], &["seal_key", "64 hex"]),
    case(
        "no source of events",
        &[("events.poll", "false")],
        &[],
        &["[events] poll, webhook, agent_sessions", "set one of them to true"],
    ),
    case("misspelled level", &[("log.filter", "\"infoo\"")], &[], &["[log] filter", "infoo", "a level"]),
    case("bad log filter", &[("log.filter", "\"info,stages=loud\"")], &[], &["[log] filter", "info,stages=debug"]),
    case("bad log format", &[("log.format", "\"xml\"")], &[], &["format", "text", "json"]),
];

/// A directory in which the executable runs, a port that is taken, and a NICE that nobody may call.
struct Place {
    dir: tempfile::TempDir,
    taken: TcpListener,
    nice: TcpListener,
}

impl Place {
    fn new() -> Self {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Self { dir: tempfile::tempdir().unwrap(), taken: listener(), nice: listener() };
        std::fs::write(place.dir.path().join("secret"), "canary-of-a-file\n").unwrap();
        place.nice.set_nonblocking(true).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The settings file with these lines.
    fn text(&self, lines: &[(&str, &str)]) -> String {
        let listen = format!("\"{}\"", self.taken.local_addr().unwrap());
        let nice = format!("\"http://{}\"", self.nice.local_addr().unwrap());
        let mut all: Vec<(&str, &str)> = LEAST.to_vec();
        all.extend([("admin.listen", listen.as_str()), ("events.webhook_listen", listen.as_str())]);
        all.extend(["nice.issuer", "nice.acd_url", "nice.facade_url", "nice.auth_url"].map(|key| (key, nice.as_str())));
        for (key, value) in lines {
            all.retain(|(known, _)| known != key);
            if !value.is_empty() {
                all.push((key, value));
            }
        }
        // Dotted keys: every line stands for itself, whatever its section.
        all.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    fn run(&self, text: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        std::fs::write(self.path().join("nice-knovvu.toml"), text).unwrap();
        let mut command = executable(arguments);
        command.current_dir(self.path()).envs(environment.iter().copied());
        Ended::of(command)
    }

    /// Nothing was made, opened or called.
    fn untouched(&self, what: &str) {
        let mut names: Vec<_> =
            std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["nice-knovvu.toml", "secret"], "{what}: something was written");
        assert!(self.nice.accept().is_err(), "{what}: NICE was called");
    }
}

/// Exit code 2, one line on stderr that says all of it, nothing on stdout, no secret.
fn is_refused(ended: &Ended, says: &[&str], what: &str) {
    assert_eq!(ended.code, Some(2), "{what}: {ended:?}");
    assert_eq!(ended.stdout, "", "{what}");
    assert!(!ended.stderr.contains("canary"), "{what} tells a secret: {}", ended.stderr);
    let line = ended.stderr.lines().find(|line| says.iter().all(|text| line.contains(text)));
    assert!(line.is_some(), "{what}: no line says {says:?}:\n{}", ended.stderr);
}

#[test]
fn a_mistake_is_named_with_its_remedy_and_nothing_is_touched() {
    let place = Place::new();
    for case in CASES {
        let text = place.text(case.lines);
        for command in ["run", "check"] {
            let what = format!("{}, {command}", case.name);
            let ended = place.run(&text, &[command], case.environment);
            is_refused(&ended, case.says, &what);
            assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{what}: one line: {}", ended.stderr);
            place.untouched(&what);
        }
    }
}

#[test]
fn an_odd_media_host_is_refused_before_anything_is_touched_or_taken() {
    let place = Place::new();
    for host in [
        "0.0.0.0:80",
        "0.0.0.0",
        "[::]:80",
        "[::1]",
        "[::1]:80",
        "127.1:80",
        "0x7f.1:80",
        "2130706433:80",
        "a-.example",
        "a..example",
        "a.example.",
        ".example",
        "*.com",
        "*.a-.example",
        "*.a_b.example",
        "a_b.example",
        "*.*.example",
        "a.example:0",
        "a.example:65536",
        "a.example:",
        "xn--.example",
        "xn--a.example",
        "-a.example",
        "1.2.3.4.5",
        "a b",
        "u@a.example",
        "%61.example",
        "é.example",
        "a.localhost",
        "a.localhost:80",
        "169.254.169.254",
        "[fe80::1%251]:80",
        "1.2.3",
        "*.1.2.3.4",
        "a.1",
        "[::ffff:127.0.0.1]:80",
        "LOCALHOST:80",
        "a\\b",
        "",
    ] {
        let quoted = format!("['{host}']");
        // A NICE that hangs up at once: nothing listens on this port.
        let nobody = "\"http://127.0.0.1:1\"";
        let text = place.text(&[("nice.media_hosts", &quoted), ("nice.issuer", nobody), ("nice.auth_url", nobody)]);
        let ended = place.run(&text, &["check"], &[]);
        if ended.code == Some(2) {
            is_refused(&ended, &["media_hosts"], host);
        } else {
            // The settings are good, and it is NICE that does not answer.
            assert_eq!(ended.code, Some(3), "{host}: {ended:?}");
            std::fs::remove_dir_all(place.path().join("data")).unwrap();
        }
        place.untouched(host);
    }
}

#[test]
fn a_listing_refuses_the_same_mistakes() {
    let place = Place::new();
    for (lines, says) in [
        (&[("events.pol", "true")], "poll"),
        (&[("log.filter", "\"info,stages=loud\"")], "[log] filter"),
        (&[("catalog.kind", "\"mysql\"")], "kind"),
    ] {
        for arguments in [&["status"][..], &["trace", "1"], &["dead-letters", "list"], &["agents", "list"]] {
            let what = format!("{lines:?}, {arguments:?}");
            is_refused(&place.run(&place.text(lines), arguments, &[]), &[says], &what);
            place.untouched(&what);
        }
    }
}

#[test]
fn all_mistakes_are_named_at_once_in_the_order_of_the_file() {
    let place = Place::new();
    let text = "[events]\npoll = 1\nwebhok = true\n[flow]\ngrace = 30\n";
    let ended = place.run(text, &["run"], &[("NICE_KNOVVU_LOG__FORMAT", "xml")]);
    assert_eq!(ended.code, Some(2));
    let at = |text: &str| ended.stderr.find(text).unwrap_or_else(|| panic!("{text} is not named: {}", ended.stderr));
    assert!(at("poll") < at("webhok") && at("webhok") < at("grace") && at("grace") < at("LOG__FORMAT"));
    assert!(at("LOG__FORMAT") < at("[tenant] id"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    let good = place.text(&[]);
    for (arguments, says) in [
        (&["run", "--config", "nowhere.toml"][..], &["nowhere.toml", "does not exist"][..]),
        (&["status", "--config", "nowhere.toml"], &["nowhere.toml", "does not exist"]),
        (&["run", "--config", "."], &["cannot be read"]),
        (&["run", "--config", "/dev/zero"], &["/dev/zero", "larger"]),
    ] {
        is_refused(&place.run(&good, arguments, &[]), says, &format!("{arguments:?}"));
        place.untouched("a file that cannot be read");
    }
    let ended = place.run(&good, &["run"], &[("NICE_KNOVVU_CONFIG", "elsewhere.toml")]);
    is_refused(&ended, &["elsewhere.toml"], "NICE_KNOVVU_CONFIG");
    for text in
        ["[events\npoll = true", "poll", "[nice]\naccess_key_secret = \"canary-unclosed", "a = 1\na = 2", "\u{0}"]
    {
        let ended = place.run(text, &["run"], &[]);
        is_refused(&ended, &["nice-knovvu.toml"], &format!("{text:?}"));
        place.untouched(text);
    }
}

#[test]
fn a_service_alone_is_refused_on_a_queue_or_catalog_that_one_process_can_open() {
    let place = Place::new();
    let rabbitmq = [("queue.kind", "\"rabbitmq\""), ("queue.url", "\"amqps://u:canary-password@h\"")];
    for command in ["producer", "consumer"] {
        let embedded = place.run(&place.text(&[]), &[command], &[]);
        is_refused(&embedded, &["[queue] kind", "nice-knovvu run", "rabbitmq", "fluvio"], command);
        let halfway = place.run(&place.text(&rabbitmq), &[command], &[]);
        is_refused(&halfway, &["[catalog] kind", "nice-knovvu run", "postgres"], command);
        place.untouched(command);
    }
}

/// An executable without Fluvio says so; one with it looks at the address and the profile.
#[test]
fn a_queue_that_cannot_be_opened_is_refused_by_every_command_that_asks_it() {
    let place = Place::new();
    let kind = ("queue.kind", "\"fluvio\"");
    let missing = &["[queue] kind", "fluvio", "--features fluvio", "rabbitmq", "embedded"][..];
    for (line, says) in [
        (("queue.fluvio", "\"h:9003\""), &["[queue]", "in clear", "[queue] profile"][..]),
        (("queue.profile", "\"nowhere\""), &["[queue] profile"]),
    ] {
        let says = if cfg!(feature = "fluvio") { says } else { missing };
        for arguments in [&["run"][..], &["check"], &["queue", "move", "--from", "embedded"]] {
            is_refused(
                &place.run(&place.text(&[kind, line]), arguments, &[]),
                says,
                &format!("{line:?} {arguments:?}"),
            );
            place.untouched("a queue that cannot be opened");
        }
    }
}

#[test]
fn a_move_without_another_queue_is_refused() {
    let place = Place::new();
    for (arguments, says) in [
        (&["queue", "move"][..], &["--from"][..]),
        (&["queue", "move", "--from", "kafka"], &["kafka", "--from"]),
        (&["queue", "move", "--from", "embedded"], &["[queue] kind", "embedded", "the other queue"]),
        (&["queue", "move", "--from", "rabbitmq", "--to", "fluvio"], &["[queue] kind", "one of the two"]),
        (&["queue", "move", "--from", "rabbitmq"], &["[queue] url", "missing", "RabbitMQ"]),
    ] {
        is_refused(&place.run(&place.text(&[]), arguments, &[]), says, &format!("{arguments:?}"));
        place.untouched("a move");
    }
}

#[test]
fn the_commands_of_the_database_are_refused_on_the_embedded_catalog() {
    let place = Place::new();
    for arguments in
        [&["migrate"][..], &["settings", "show"], &["settings", "set"], &["settings", "check", "--tenant", "acme"]]
    {
        let ended = place.run(&place.text(&[]), arguments, &[]);
        is_refused(&ended, &["[catalog] kind", "postgres", "[nice]"], &format!("{arguments:?}"));
        place.untouched("a command of the database");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let place = Place::new();
    let address = place.taken.local_addr().unwrap().to_string();
    let ended = place.run(&place.text(&[]), &["run"], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.stderr.lines().last().unwrap();
    assert!(line.contains("[admin] listen") && line.contains(&address), "{line}");
    let webhook =
        [("admin.listen", "\"127.0.0.1:0\""), ("events.webhook", "true"), ("events.webhook_token", "\"canary\"")];
    let ended = place.run(&place.text(&webhook), &["run"], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.stderr.lines().last().unwrap();
    assert!(line.contains("[events] webhook_listen") && line.contains(&address), "{line}");
    assert!(!place.path().join("data/admin.json").exists(), "the address of a daemon that is gone");
}

#[test]
fn who_only_looks_makes_nothing() {
    let place = Place::new();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["trace", "698800000001"],
        &["agents", "list"],
        &["dead-letters", "list", "--json"],
        &["backfill", "status"],
    ] {
        let empty = tempfile::tempdir().unwrap();
        let mut command = executable(arguments);
        command.current_dir(empty.path());
        let ended = Ended::of(command);
        is_refused(&ended, &["--config", "NICE_KNOVVU_CONFIG", "nice-knovvu.toml"], &format!("{arguments:?}"));
        assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "{arguments:?}: something was written");
        // Where the daemon never ran, or another directory is meant.
        let ended = place.run(&place.text(&[]), arguments, &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}: {ended:?}");
        let dir = place.path().join("data");
        for text in ["[state] dir", dir.to_str().unwrap(), "nice-knovvu run"] {
            assert!(ended.stderr.contains(text), "{arguments:?}: {ended:?}");
        }
        place.untouched(&format!("{arguments:?}"));
    }
}

#[test]
fn a_mistake_of_the_command_line_is_shown_a_right_one() {
    let place = Place::new();
    let good = place.text(&[]);
    for (arguments, says) in [
        (&["dead-letters", "show", "one"][..], &["such as 17", "dead-letters list"][..]),
        (&["backfill", "cancel", "x"], &["such as 17", "backfill"]),
        (&["trace", "abc"], &["CONVERSATION_ID", "such as 698800000001"]),
        (&["backfill", "--from", "2026-04-01T10:00", "--to", "2026-04-02"], &["without an offset", "T08:00:00Z"]),
        (&["backfill", "--from", "01.04.2026", "--to", "2026-04-02"], &["not a day of the calendar", "2026-04-01"]),
    ] {
        let ended = place.run(&good, arguments, &[]);
        let said = ended.stderr.replace('\n', " ");
        assert!(ended.code == Some(2) && says.iter().all(|text| said.contains(text)), "{arguments:?}: {ended:?}");
        place.untouched(&format!("{arguments:?}"));
    }
    // Without seconds it is a moment all the same: only the order of the two is wrong.
    let ended = place.run(&good, &["backfill", "--from", "2026-04-01T10:00+03:00", "--to", "2026-04-01T06:00Z"], &[]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--from"), "{ended:?}");
    assert!(!ended.stderr.contains("offset"), "{ended:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let place = Place::new();
    // Below a file, and in a place where not even root can make one.
    for dir in ["secret/data", "/proc/nice-knovvu"] {
        for arguments in [&["run"][..], &["status"], &["check"]] {
            let quoted = format!("\"{dir}\"");
            let ended = place.run(&place.text(&[("state.dir", &quoted)]), arguments, &[]);
            assert_eq!(ended.code, Some(1), "{dir} {arguments:?}: {ended:?}");
            let line = ended.stderr.lines().last().unwrap_or_default();
            assert!(line.contains(dir), "{arguments:?}: {line}");
            assert!(!line.contains("panicked"), "{line}");
        }
        let quoted = format!("\"{dir}\"");
        let ended = place.run(&place.text(&[("recordings.dir", &quoted)]), &["run"], &[]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let line = ended.stderr.lines().last().unwrap_or_default();
        assert!(line.contains("[recordings] dir") && line.contains(dir), "{line}");
    }
}

#[test]
fn a_command_line_that_is_wrong_is_refused_with_exit_code_2() {
    let place = Place::new();
    let good = place.text(&[]);
    for arguments in [
        &[][..],
        &["rn"],
        &["run", "--confg", "x"],
        &["trace"],
        &["trace", "../x"],
        &["trace", "0"],
        &["trace", "12345678901234567890"],
        &["dead-letters", "replay"],
        &["dead-letters", "replay", "1", "--all"],
        &["dead-letters", "show", "one"],
        &["dead-letters", "drop", "-1"],
        &["completions", "tcsh"],
        &["run", "extra"],
    ] {
        let ended = place.run(&good, arguments, &[]);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
        place.untouched(&format!("{arguments:?}"));
    }
}
