//! Secrets: their files, and that none is ever told.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;
use crate::config::{keys, settings};

/// A text, an environment, what the mistake contains.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// Writes a secret file and names it by an absolute path.
fn secret_file(directory: &tempfile::TempDir, bytes: &[u8]) -> String {
    let path = directory.path().join("secret");
    std::fs::write(&path, bytes).expect("the secret is written");
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

/// What becomes of `[nice] access_key_secret_file` with these bytes.
fn from_file(bytes: &[u8]) -> Result<String, String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = secret_file(&directory, bytes);
    let mut env: Vec<_> = LEAST.iter().copied().filter(|(name, _)| !name.ends_with("KEY_SECRET")).collect();
    env.push(("NICE_KNOVVU_NICE__ACCESS_KEY_SECRET_FILE", &path));
    match load("", &env, Need::Service) {
        Ok(config) => {
            let secret = config.nice.access_key_secret.as_ref().expect("[nice] is complete");
            Ok(secret.expose_secret().to_owned())
        }
        Err(errors) => Err(errors.to_string()),
    }
}

#[test]
fn a_secret_file_gives_its_text_without_the_last_line_break() {
    assert_eq!(from_file(b"s3cr3t\n").as_deref(), Ok("s3cr3t"));
    assert_eq!(from_file(b"s3cr3t\r\n").as_deref(), Ok("s3cr3t"));
    assert_eq!(from_file(b"s3cr3t").as_deref(), Ok("s3cr3t"));
    assert_eq!(from_file(b"\xef\xbb\xbfs3cr3t\r\n").as_deref(), Ok("s3cr3t"), "a byte order mark is no part of it");
    assert_eq!(from_file(b" s3 cr3t \n").as_deref(), Ok(" s3 cr3t "));
}

#[test]
fn a_secret_file_without_a_secret_is_refused() {
    for (bytes, fragment) in [
        (b"".as_slice(), "is empty"),
        (b"\n", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"s3cr3t\nmore", "line break"),
        (b"s3cr3t\xff", "not UTF-8"),
        (b"\xff\xfes\x003\x00", "save it as UTF-8"),
    ] {
        let told = from_file(bytes).expect_err("it holds no secret");
        assert!(told.contains("/secret ") && told.contains("correct the path, or write the secret"), "{told}");
        assert!(told.starts_with("NICE_KNOVVU_NICE__ACCESS_KEY_SECRET_FILE: ") && told.contains(fragment), "{told}");
        assert!(!told.contains("s3cr3t"), "{told}");
    }
}

#[test]
fn a_secret_file_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("missing");
    let text = |path: &str| format!("[nice]\naccess_key_secret_file = \"{path}\"");
    let here = std::env::current_dir().expect("there is one");
    for (path, fragment) in [
        (missing.to_str().expect("UTF-8"), "does not exist"),
        (directory.path().to_str().expect("UTF-8"), "cannot be read"),
        ("/nowhere/at/all", "does not exist"),
        ("./missing", "does not exist"),
        ("../missing", "does not exist"),
        ("src/missing", "does not exist"),
        ("src", "cannot be read"),
    ] {
        let told = mistakes_of(&text(path), &[], Need::Local);
        assert!(told.starts_with("nice-knovvu.toml: [nice] access_key_secret_file: the secret file "), "{told}");
        for part in [path, fragment, "correct the path, or write the secret into that file"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    let file = secret_file(&directory, b"http://u:s3cr3t@h");
    let told = mistakes_of(&format!("[queue]\nkind = \"rabbitmq\"\nurl_file = \"{file}\""), &[], Need::Local);
    assert!(told.contains("[queue] url_file: ") && told.contains(&file) && told.contains("amqps://"), "{told}");
    assert!(!told.contains("s3cr3t"), "{told}");
    // Perhaps the secret itself.
    for path in ["s3cr3t", "s3cr3t/+==", "s3cr3t.x"] {
        let told = mistakes_of(&text(path), &[], Need::Local);
        assert!(!told.contains("s3cr3t") && told.contains(&here.display().to_string()), "{told}");
    }
}

#[test]
fn a_secret_given_in_a_wrong_way_is_not_told() {
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("[nice]\naccess_key_secret = \"s3cr3t\"\naccess_key_secret_file = \"/s3cr3t\"", &[],
            "[nice] access_key_secret_file: access_key_secret and access_key_secret_file are both given"),
        ("", &[("NICE_KNOVVU_CATALOG__URL", "s3cr3t"), ("NICE_KNOVVU_CATALOG__URL_FILE", "s3cr3t")], "url and url_file are both given"),
        ("[nice]\naccess_key_secret_file = \"s3cr3t\"", &[], "cannot be used: it does not exist"),
        ("[nice]\naccess_key_secret_file = \"/\"", &[], "cannot be read"),
        ("[nice]\naccess_key_secret_file = \"\"", &[], "expected the path of a file"),
        ("[nice]\naccess_key_secret_file = [\"s3cr3t\"]", &[], "found a list, expected the path"),
        ("[nice]\naccess_key_secret = [\"s3cr3t\"]", &[], "[nice] access_key_secret: found a list"),
        ("[nice]\naccess_key_secret = { s3cr3t = \"s3cr3t\" }", &[], "found a table"),
        ("[nice]\naccess_key_secret = \"\"", &[], "found an empty text"),
        ("[nice]\naccess_key_secret = \"s3cr3t\\ns3cr3t\"", &[], "control character"),
        ("[nice]\naccess_key_secret = s3cr3t", &[], "nice-knovvu.toml:2:"),
        ("[nice]\naccess_key_secret = \"s3cr3t", &[], "nice-knovvu.toml:2:"),
        ("[nice]\naccess_key_secret = \"s3cr3t\" s3cr3t", &[], "nice-knovvu.toml:2:"),
        ("[nice]\naccess_key_secret = \"\\s3cr3t\"", &[], "nice-knovvu.toml:2:"),
        ("[nice]\nacess_key_secret = \"s3cr3t\"", &[], "did you mean access_key_secret?"),
        ("", &[("NICE_KNOVVU_NICE__ACCESSKEY_SECRET", "s3cr3t")], "did you mean NICE_KNOVVU_NICE__ACCESS_KEY_SECRET "),
        ("[catalog]\nseal_key = \"s3cr3t\"", &[], "its length is not 64 digits"),
        ("", &[("NICE_KNOVVU_CATALOG__SEAL_KEY", "s3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr")], "something else than hex digits"),
        ("[queue]\nkind = \"rabbitmq\"\nurl = \"http://u:s3cr3t@h\"", &[], "[queue] url: does not begin with amqp:// or amqps://"),
        ("[catalog]\nkind = \"postgres\"\nurl = \"u:s3cr3t@h\"", &[], "[catalog] url: does not begin with postgres://"),
        ("[nice]\nissuer = \"https://u:s3cr3t@h\"", &[], "user name and password do not belong"),
        ("[nice]\nmedia_hosts = [\"u:s3cr3t@h\"]", &[], "a text of 10 characters"),
        ("[recordings]\nendpoint = \"https://h/?t=s3cr3t\"", &[], "neither ? nor #"),
        ("[queue]\nkind = \"amqp://u:s3cr3t@h\"", &[], "[queue] kind: found a text of"),
    ];
    for (text, env, fragment) in rows {
        let told = mistakes_of(text, env, Need::Local);
        assert!(told.contains(fragment), "{text:?} told: {told}\n  lacks: {fragment}");
        assert!(!told.contains("s3cr3t"), "{text:?} told: {told}");
        assert_eq!(told.lines().count(), 1, "{text:?} told: {told}");
    }
}

#[test]
fn debug_and_the_redacted_page_tell_no_secret() {
    let config = load("[queue]\nurl = \"amqp://u:s3cr3t@h\"", LEAST, Need::Service).expect("all is given");
    let told = format!("{config:?}{}", config.to_redacted_toml());
    assert!(!told.contains("s3cr3t"), "{told}");
}

/// Secrets of many alphabets, at every secret key, in texts that are whole, cut, doubled or mistyped.
#[test]
fn no_secret_ever_reaches_an_error() {
    let secret_keys: Vec<_> = settings::all().filter(|(_, _, key)| key.is_secret).collect();
    for seed in 0..20_000 {
        let mut chance = StdRng::seed_from_u64(seed);
        let alphabet: Vec<char> = "0123456789abcdefXYZ+/=\"'\\#[]{}.,:@?%$ é\t".chars().collect();
        // The mark makes the secret recognisable whatever an error quotes of it.
        let noise = |chance: &mut StdRng| {
            (0..chance.random_range(0..12)).filter_map(|_| alphabet.choose(chance)).collect::<String>()
        };
        let secret = format!("{}qQ7zKw{}", noise(&mut chance), noise(&mut chance));
        let (_, section, key) = secret_keys.choose(&mut chance).expect("there are secrets");
        let form = *key.forms().choose(&mut chance).expect("a key has a form");
        if form == keys::Form::SecretFile && secret.starts_with(['/', '.']) {
            continue; // that is the path of a file
        }
        let written = key.written(form);
        let value = match chance.random_range(0..7) {
            0 => secret.clone(),
            1 => format!("\"{secret}\""),
            2 => format!("'{secret}'"),
            3 => format!("[\"{secret}\"]"),
            4 => format!("{{ \"{secret}\" = 1 }}"),
            5 => format!("\"\"\"{secret}"),
            _ => toml::Value::String(secret.clone()).to_string(),
        };
        let mut text =
            format!("[{}]\nkind = \"postgres\"\n{written} = {value}\n[queue]\nkind = \"rabbitmq\"\n", section.name);
        if chance.random_bool(0.3) {
            let end = text.floor_char_boundary(chance.random_range(0..text.len()));
            text.truncate(end);
        }
        let name = keys::environment_name(section.name, &written);
        let env: &[(&str, &str)] = if chance.random_bool(0.5) { &[(&name, &secret)] } else { &[] };
        if let Err(errors) = load(&text, env, Need::Service) {
            let told = format!("{errors}{errors:?}");
            assert!(!told.contains("qQ7zKw"), "seed {seed}: {text:?} told: {told}");
        }
    }
}
