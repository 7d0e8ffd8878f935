//! Each rule by its mistakes: a text, an environment, what the error says.

use super::*;

/// A text, an environment, what its mistakes contain. Loaded as a listing would, so that nothing is missing.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const FILE: &str = "nice-knovvu.toml: ";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Unknown keys, with the nearest one.
    ("[events]\npoll_intervall = \"1s\"", &[], &["[events] poll_intervall: unknown key; did you mean poll_interval?"]),
    ("[nice]\nacess_key_secret = \"x\"", &[], &["[nice] acess_key_secret: unknown key; did you mean access_key_secret?"]),
    ("[nice]\naccess_key_secret_fil = \"x\"", &[], &["did you mean access_key_secret_file?"]),
    ("[nice]\ngroup_file = \"x\"", &[], &["[nice] group_file: unknown key; did you mean group"]),
    ("[log]\nissuer = \"x\"", &[], &["[log] issuer: unknown key; issuer belongs to [nice]"]),
    ("[log]\nzzzzzzzz = 1", &[], &["[log] zzzzzzzz: unknown key; remove it", "format, filter"]),
    ("[event]\npoll = true", &[], &["[event]: unknown section; did you mean [events]?"]),
    ("[zzzzzzzzzzzz]\na = 1", &[], &["[zzzzzzzzzzzz]: unknown section; remove it", "tenant, nice"]),
    ("[[evnts]]\npoll = true", &[], &["[evnts]: unknown section; did you mean [events]?"]),
    ("poll_interval = \"1s\"", &[], &["poll_interval: unknown key outside of a section; did you mean poll_interval in [events]?"]),
    ("zzzzzzzzzzz = 1", &[], &["zzzzzzzzzzz: unknown key outside of a section"]),
    ("nice = 3", &[], &["nice: is a section; write [nice]"]),
    ("[nice.group]\nid = 3", &[], &["[nice] group: found a table, expected text"]),
    ("events.pol = true", &[], &["[events] pol: unknown key; did you mean poll?"]),
    ("[log]\n\"a\\nb\" = 1", &[], &["[log] a\\nb: unknown key"]),
    ("", &[("NICE_KNOVVU_EVENTS__POLL_INTERVALL", "1s")],
        &["NICE_KNOVVU_EVENTS__POLL_INTERVALL: unknown key; did you mean NICE_KNOVVU_EVENTS__POLL_INTERVAL (poll_interval in [events])?"]),
    ("", &[("NICE_KNOVVU_EVENTS_POLL_INTERVAL", "1s")], &["did you mean NICE_KNOVVU_EVENTS__POLL_INTERVAL"]),
    ("", &[("NICE_KNOVVU_nice__group", "x")], &["NICE_KNOVVU_nice__group: unknown key; did you mean NICE_KNOVVU_NICE__GROUP"]),
    ("", &[("NICE_KNOVVU_ZZZZZZ__YYYYYYYYYYYY", "x")], &["NICE_KNOVVU_ZZZZZZ__YYYYYYYYYYYY: unknown key; remove it"]),
    ("", &[("NICE_KNOVVU_NICE__GROUP_FILE", "x")], &["NICE_KNOVVU_NICE__GROUP_FILE: unknown key; did you mean NICE_KNOVVU_NICE__GROUP"]),
    // Durations and rates.
    ("[events]\npoll_interval = 15", &[], &["[events] poll_interval: found the number 15", "a bare number has no unit; write \"15s\"", "such as \"15s\""]),
    ("[events]\npoll_interval = \"15\"", &[], &["found \"15\"", "a bare number has no unit; write \"15s\""]),
    ("[events]\npoll_interval = 1.5", &[], &["the number 1.5", "a bare number has no unit"]),
    ("[events]\npoll_interval = \"15 parsecs\"", &[], &["found \"15 parsecs\"", "the unit is not one of ms, s, m, h, d"]),
    ("[events]\npoll_interval = \"-5s\"", &[], &["found \"-5s\"", "a number with its unit"]),
    ("[events]\npoll_interval = \"\"", &[], &["a number with its unit"]),
    ("[events]\npoll_interval = \"0s\"", &[], &["must be longer than zero"]),
    ("[events]\npoll_interval = \"99999999999999999999d\"", &[], &["longer than 3650d"]),
    ("[events]\npoll_interval = true", &[], &["found the boolean true, expected a duration"]),
    ("[state]\nretention = \"3651d\"", &[], &["longer than 3650d"]),
    ("", &[("NICE_KNOVVU_AGENTS__SYNC_INTERVAL", "10")], &["NICE_KNOVVU_AGENTS__SYNC_INTERVAL: found \"10\"", "write \"10s\""]),
    ("[retry]\nnot_ready_delays = []", &[], &["[retry] not_ready_delays: found a list (0 steps"]),
    ("[retry]\nnot_ready_delays = [\"30s\", 60]", &[], &["\"60\": a bare number has no unit; write \"60s\""]),
    ("[retry]\nfirst_look = 1", &[], &["[retry] first_look: ", "expected a number from 0 to 0.999"]),
    ("[retry]\nfirst_look = -0.1", &[], &["expected a number from 0 to 0.999"]),
    ("[retry]\nnot_ready_delays = \"30s\"", &[], &["expected a list of durations"]),
    ("[retry]\nerror_delay_min = \"10m\"", &[], &["[retry] error_delay_min: error_delay_min = \"10m\" is longer than error_delay_max = \"5m\""]),
    ("[limits]\nmedia_playback = 150", &[], &["[limits] media_playback: found the number 150", "such as \"150/5m\""]),
    ("[limits]\nacd = \"2\"", &[], &["a rate names its window after a slash"]),
    ("[limits]\nacd = \"0/s\"", &[], &["a whole number from 1"]),
    ("[limits]\nacd = \"2/0s\"", &[], &["the window: must be longer than zero"]),
    ("[limits]\nacd = \"2/5\"", &[], &["the window: a bare number has no unit"]),
    ("[limits]\nacd = \"2/fortnight\"", &[], &["the window: the unit is not one of"]),
    // Fluvio.
    ("[queue]\nfluvio = \"sc.example.com\"", &[], &["[queue] fluvio: found \"sc.example.com\" (it has no port)", "such as \"127.0.0.1:9003\""]),
    ("[queue]\nfluvio = \"tcp://h:9003\"", &[], &["neither a scheme nor a path belongs here"]),
    ("[queue]\nfluvio = \"h:0\"", &[], &["a number from 1 to 65535"]),
    ("[queue]\nfluvio = \"u@h:9003\"", &[], &["what stands before the port is no host"]),
    ("[queue]\nfluvio = \"::1:9003\"", &[], &["what stands before the port is no host"]),
    ("[queue]\npartitions = 0", &[], &["[queue] partitions: found the number 0", "from 1 to 64"]),
    ("[queue]\nreplication = 10", &[], &["[queue] replication: found the number 10", "from 1 to 9"]),
    ("[queue]\nkind = \"fluvio\"\nurl = \"https://u:s3cr3t@h\"", &[], &["[queue] url: with kind = \"fluvio\"", "amqps://", "[queue] fluvio"]),
    ("[queue]\nkind = \"fluvio\"\nurl = \"h:9003\"\nfluvio = \"h:9003\"", &[], &["[queue] url: [queue] fluvio names the cluster already"]),
    ("[queue]\nprofile = \"p\"\nfluvio = \"h:9003\"", &[], &["[queue] profile: [queue] fluvio names the cluster already"]),
    ("[queue]\nkind = \"fluvio\"\nprofile = \"p\"\nurl = \"h:9003\"", &[], &["[queue] url: [queue] profile names the cluster already"]),
    // Other types and bounds.
    ("[limits]\nlive_reserve = 1.5", &[], &["found the number 1.5, expected a number from 0 to 1, such as 0.5"]),
    ("[limits]\nlive_reserve = nan", &[], &["[limits] live_reserve", "expected a number from 0 to 1"]),
    ("[limits]\nlive_reserve = \"0.5\"", &[], &["found \"0.5\", expected a number from 0 to 1"]),
    ("[consumer]\nconcurrency = 0", &[], &["found the number 0, expected a whole number from 1 to 1024, such as 16"]),
    ("[consumer]\nconcurrency = 1025", &[], &["a whole number from 1 to 1024"]),
    ("[consumer]\nconcurrency = \"16\"", &[], &["found \"16\", expected a whole number"]),
    ("", &[("NICE_KNOVVU_CONSUMER__CONCURRENCY", "many")], &["NICE_KNOVVU_CONSUMER__CONCURRENCY: found \"many\", expected a whole number"]),
    ("[events]\npoll = \"yes\"", &[], &["[events] poll: found \"yes\", expected true or false"]),
    ("", &[("NICE_KNOVVU_EVENTS__POLL", "1")], &["found \"1\", expected true or false"]),
    ("[nice]\ngroup = 42", &[], &["[nice] group: found the number 42, expected text in quotes"]),
    ("[nice]\ngroup = \"\"", &[], &["[nice] group: found \"\", expected text in quotes that is not empty"]),
    ("[nice]\ngroup = \"a\\u0000b\"", &[], &["control character"]),
    ("[tenant]\nid = \"a/b\"", &[], &["[tenant] id: found \"a/b\", expected 1 to 64 letters, digits, _ or -"]),
    ("[tenant]\nid = \"..\"", &[], &["[tenant] id"]),
    ("[tenant]\nid = \"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg\"", &[], &["a text of 65 characters"]),
    ("[nice]\napi_version = \"33\"", &[], &["found \"33\", expected a version such as \"v33.0\""]),
    ("[nice]\napi_version = \"v33.0/..\"", &[], &["expected a version such as"]),
    ("[recordings]\nbucket = \"My_Bucket\"", &[], &["[recordings] bucket"]),
    ("[queue]\nprefix = \"a b\"", &[], &["[queue] prefix"]),
    ("[state]\ndir = \"\"", &[], &["[state] dir: found \"\", expected a path"]),
    // Words.
    ("[queue]\nkind = \"rabitmq\"", &[], &["[queue] kind: found \"rabitmq\" (did you mean \"rabbitmq\"?)"]),
    ("[queue]\nkind = \"kafka\"", &[], &["found \"kafka\", expected \"embedded\" or \"rabbitmq\" or \"fluvio\""]),
    ("[nice]\nauth_flow = \"OAuth\"", &[], &["did you mean \"oauth\"?"]),
    ("[log]\nformat = \"jsn\"", &[], &["did you mean \"json\"?"]),
    ("", &[("NICE_KNOVVU_CATALOG__KIND", "postgress")], &["NICE_KNOVVU_CATALOG__KIND", "did you mean \"postgres\"?"]),
    // Addresses.
    ("[nice]\nissuer = \"http://cxone.example.com\"", &[], &["[nice] issuer", "plain http is accepted only to a loopback address"]),
    ("[nice]\nissuer = \"\"", &[], &["[nice] issuer: found \"\"", "such as \"https://example.com\""]),
    ("[nice]\nacd_url = \"http://127.0.0.1.example.com\"", &[], &["plain http"]),
    ("[nice]\nacd_url = \"http://10.0.0.1\"", &[], &["plain http"]),
    ("[nice]\nfacade_url = \"http://0.0.0.0.example\"", &[], &["plain http"]),
    ("[nice]\nfacade_url = \"http://0.0.0.0:8080\"", &[], &["plain http"]),
    ("[nice]\nfacade_url = \"http://a.localhost\"", &[], &["plain http"]),
    ("[nice]\nmedia_hosts = [\"0.0.0.0\"]", &[], &["a loopback address is named with its port"]),
    ("[nice]\nauth_url = \"ftp://example.com\"", &[], &["neither https:// nor http://"]),
    ("[nice]\nauth_url = \"example.com\"", &[], &["[nice] auth_url: found \"example.com\" (not a URL"]),
    ("[nice]\nauth_url = \"https://e.com/?a=b\"", &[], &["neither ? nor #"]),
    ("[recordings]\nendpoint = \"http://minio:9000\"", &[], &["[recordings] endpoint", "plain http"]),
    ("[nice]\nmedia_hosts = []", &[], &["an empty list refuses every recording"]),
    ("[nice]\nmedia_hosts = [\"*\"]", &[], &["would allow every host"]),
    ("[nice]\nmedia_hosts = [\"*.com\"]", &[], &["\"*.com\": the suffix is too wide"]),
    ("[nice]\nmedia_hosts = [\"*.example.com:443\"]", &[], &["without a port"]),
    ("[nice]\nmedia_hosts = [\"https://example.com\"]", &[], &["a host, not a URL"]),
    ("[nice]\nmedia_hosts = [\"127.0.0.1\"]", &[], &["\"127.0.0.1\": a loopback address is named with its port"]),
    ("[nice]\nmedia_hosts = [\"127.1\"]", &[], &["a loopback address is named with its port"]),
    ("[nice]\nmedia_hosts = [\"localhost\"]", &[], &["a loopback address is named with its port"]),
    ("[nice]\nmedia_hosts = [\"[::1]\"]", &[], &["a loopback address is named with its port"]),
    ("[nice]\nmedia_hosts = [\"[::ffff:127.0.0.1]\"]", &[], &["a loopback address is named with its port"]),
    ("[nice]\nmedia_hosts = [\"example.com:0\"]", &[], &["the port is a number from 1 to 65535"]),
    ("[nice]\nmedia_hosts = [\"exa mple.com\"]", &[], &["neither host, *.suffix nor host:port"]),
    ("[nice]\nmedia_hosts = [\"a..com\"]", &[], &["neither host"]),
    (
        "[nice]\nprivate_media_hosts = [\"b.example.com\"]",
        &[],
        &["[nice] private_media_hosts: \"b.example.com\" is not on media_hosts; list it there, too"],
    ),
    ("[nice]\nprivate_media_hosts = [\"10.0.0.1\"]", &[], &["a private or reserved address is never a media host"]),
    ("[recordings]\nmin_rate = 0", &[], &["[recordings] min_rate", "a whole number from 1"]),
    ("[recordings]\nmin_rate = \"1KiB/s\"", &[], &["[recordings] min_rate", "a whole number from 1"]),
    ("[nice]\nmedia_hosts = [3]", &[], &["[nice] media_hosts: found a list, expected a list of host"]),
    ("[admin]\nlisten = \"localhost:9464\"", &[], &["[admin] listen: found \"localhost:9464\"", "such as \"127.0.0.1:9464\""]),
    ("[admin]\nlisten = \"127.0.0.1\"", &[], &["not an IP address with a port"]),
    ("[admin]\nlisten = 9464", &[], &["found the number 9464, expected an IP address with a port"]),
    // Times.
    ("[reconciliation]\nat = \"2:00\"", &[], &["[reconciliation] at: found \"2:00\" (not a time of day), expected a time of day such as \"02:00\""]),
    ("[reconciliation]\nat = \"24:00\"", &[], &["not a time of day"]),
    ("[reconciliation]\nat = 02:00:00", &[], &["found a date or time without quotes"]),
    ("[reconciliation]\ntimezone = \"Europe/Atlantis\"", &[], &["not a known time zone", "\"Europe/Berlin\""]),
    // TOML itself.
    ("[nice]\ngroup = \"open", &[], &["nice-knovvu.toml:2:", "not TOML"]),
    ("[nice]\ngroup = \"a\"\ngroup = \"b\"", &[], &["nice-knovvu.toml:3:1: not TOML: duplicate key"]),
];

#[test]
fn each_mistake_is_told_with_its_key_and_remedy() {
    for (text, env, expected) in ROWS {
        let told = mistakes_of(text, env, Need::Local);
        for fragment in *expected {
            assert!(told.contains(fragment), "{text:?} {env:?}\n  told: {told}\n  lacks: {fragment}");
        }
        assert_eq!(told.lines().count(), 1, "{text:?} {env:?} told: {told}");
        let begins = if env.is_empty() { FILE.trim_end_matches(": ") } else { env[0].0 };
        assert!(told.starts_with(begins), "{told}");
    }
}

/// A text, and the keys that a service lacks with it, each with a fragment of the reason.
#[rustfmt::skip]
const MISSING: &[(&str, &[(&str, &str)])] = &[
    ("", &[("[tenant] id", "id = \"acme\" under [tenant], or NICE_KNOVVU_TENANT__ID"), ("[nice] client_id", "auth_flow = \"oauth\""),
        ("[nice] client_secret", "NICE_KNOVVU_NICE__CLIENT_SECRET_FILE"), ("[nice] access_key_id", "access key"),
        ("[nice] access_key_secret", "access_key_secret_file"), ("[nice] group", "whose users' calls")]),
    ("[tenant]\nid = \"a\"\n[nice]\nauth_flow = \"access_key\"\ngroup = \"g\"",
        &[("[nice] access_key_id", ""), ("[nice] access_key_secret", "NICE_KNOVVU_NICE__ACCESS_KEY_SECRET")]),
    ("[tenant]\nid = \"a\"\n[catalog]\nkind = \"postgres\"",
        &[("[catalog] url", "kind = \"postgres\""), ("[catalog] seal_key", "seal_key_file")]),
    ("[tenant]\nid = \"a\"\n[catalog]\nkind = \"postgres\"\nurl = \"postgres://h/d\"\n[queue]\nkind = \"rabbitmq\"\n[events]\nwebhook = true\n[recordings]\nkind = \"s3\"",
        &[("[events] webhook_token", "webhook = true"), ("[queue] url", "kind = \"rabbitmq\""), ("[catalog] seal_key", "hex"),
        ("[recordings] endpoint", "kind = \"s3\""), ("[recordings] bucket", ""), ("[recordings] access_key_id", ""),
        ("[recordings] secret_access_key", "NICE_KNOVVU_RECORDINGS__SECRET_ACCESS_KEY_FILE")]),
    ("[tenant]\nid = \"a/b\"\n[nice]\nauth_flow = \"x\"\naccess_key_id = \"k\"\naccess_key_secret = \"s\"\ngroup = \"g\"",
        &[("[tenant] id", "found"), ("[nice] auth_flow", "found")]),
];

#[test]
fn what_is_missing_is_told_with_the_reason_and_both_ways_to_give_it() {
    for (text, expected) in MISSING {
        let told = mistakes_of(text, &[], Need::Service);
        assert_eq!(told.lines().count(), expected.len(), "{text:?} told: {told}");
        for (line, (key, reason)) in told.lines().zip(*expected) {
            assert!(line.starts_with(&format!("{FILE}{key}: ")), "{line} is not about {key}");
            assert!(line.contains(reason), "{line} lacks {reason}");
        }
    }
    let without_file = Config::load(None, [("NICE_KNOVVU_TENANT__ID", "a")], Need::Nice).expect_err("NICE is missing");
    assert!(without_file.to_string().starts_with("[nice] client_id: missing"), "{without_file}");
}

#[test]
fn loopback_is_the_only_place_for_plain_http() {
    for host in ["127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "localhost:8080"] {
        let text = format!("[nice]\nissuer = \"http://{host}\"\n[recordings]\nendpoint = \"http://{host}/\"");
        load(&text, &[], Need::Local).unwrap_or_else(|errors| panic!("{errors}"));
    }
}
