//! The keys that sign requests, and their rotation.
//!
//! Keys in files are read again soon after a file changed, and at once when the store refuses the ones in use; no
//! restart is needed. A file that cannot be read, or is half written, leaves the keys in use as they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use model::text::without_mark;
use rusoto_core::credential::{AwsCredentials, CredentialsError, ProvideAwsCredentials};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Where the keys come from.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// They stand in the settings, or in the environment.
    Static {
        /// `access_key_id`.
        access_key_id: String,
        /// `secret_access_key`.
        secret_access_key: SecretString,
        /// Of temporary keys.
        session_token: Option<SecretString>,
    },
    /// The id stands in the settings, the secret in a file of its own.
    SecretFile {
        /// `access_key_id`.
        access_key_id: String,
        /// Holds the secret and nothing else; a line end after it does not count.
        secret_access_key_file: PathBuf,
        /// Of temporary keys, likewise.
        session_token_file: Option<PathBuf>,
    },
    /// A profile of a shared credentials file, as AWS's tools write it.
    Profile {
        /// The file, such as `~/.aws/credentials`.
        file: PathBuf,
        /// The section, such as `default`.
        profile: String,
    },
}

/// Files are looked at so often; a new secret is usually put in place while the old one still works.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// No file of keys is larger.
const MOST_FILE: u64 = 64 * 1024;

/// Gives the keys of now.
#[derive(Clone)]
pub(super) struct Keyring {
    source: Arc<Credentials>,
    held: Arc<Mutex<LoadedKeys>>,
}

struct LoadedKeys {
    keys: AwsCredentials,
    /// Counts the keys, so that a refusal of older ones does not count against these.
    generation: u64,
    seen: Vec<Option<FileStamp>>,
    looked_at: Instant,
}

/// By what a changed file is told.
type FileStamp = (SystemTime, u64);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads the keys for the first time.
    pub(super) async fn open(source: Credentials) -> Result<Self, String> {
        let seen = source.seen().await;
        let keys = source.read().await?;
        let held = LoadedKeys { keys, generation: 0, seen, looked_at: Instant::now() };
        Ok(Self { source: Arc::new(source), held: Arc::new(Mutex::new(held)) })
    }

    /// Which keys are in use.
    pub(super) async fn generation(&self) -> u64 {
        self.held.lock().await.generation
    }

    /// Reads the keys again because those of `generation` were refused; whether others are in use now.
    pub(super) async fn renew(&self, generation: u64) -> bool {
        let mut held = self.held.lock().await;
        if held.generation == generation {
            held.read_again(&self.source).await;
        }
        held.generation != generation
    }
}

impl LoadedKeys {
    async fn read_again(&mut self, source: &Credentials) {
        let seen = source.seen().await;
        self.looked_at = Instant::now();
        match source.read().await {
            Ok(keys) => {
                self.seen = seen;
                if !same(&keys, &self.keys) {
                    self.keys = keys;
                    self.generation += 1;
                    tracing::info!("the keys of the recording store changed, the new ones are in use");
                }
            }
            Err(error) => tracing::warn!(error, "the keys of the recording store cannot be read, the old ones stay"),
        }
    }
}

fn same(one: &AwsCredentials, other: &AwsCredentials) -> bool {
    one.aws_access_key_id() == other.aws_access_key_id()
        && one.aws_secret_access_key() == other.aws_secret_access_key()
        && one.token() == other.token()
}

#[async_trait]
impl ProvideAwsCredentials for Keyring {
    async fn credentials(&self) -> Result<AwsCredentials, CredentialsError> {
        let mut held = self.held.lock().await;
        if held.looked_at.elapsed() >= LOOK_INTERVAL {
            held.looked_at = Instant::now();
            if self.source.seen().await != held.seen {
                held.read_again(&self.source).await;
            }
        }
        Ok(held.keys.clone())
    }
}

impl Credentials {
    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Static { .. } => Vec::new(),
            Self::SecretFile { secret_access_key_file, session_token_file, .. } => {
                [Some(secret_access_key_file), session_token_file.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(|f| &**f)
                    .collect()
            }
            Self::Profile { file, .. } => vec![file],
        }
    }

    async fn seen(&self) -> Vec<Option<FileStamp>> {
        let mut seen = Vec::new();
        for file in self.files() {
            let metadata = tokio::fs::metadata(file).await.ok();
            seen.push(metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))));
        }
        seen
    }

    async fn read(&self) -> Result<AwsCredentials, String> {
        match self {
            Self::Static { access_key_id, secret_access_key, session_token } => {
                let token = session_token.as_ref().map(|token| token.expose_secret().to_owned());
                keys(access_key_id, secret_access_key.expose_secret(), token)
            }
            Self::SecretFile { access_key_id, secret_access_key_file, session_token_file } => {
                let secret = read_file("secret_access_key_file", secret_access_key_file).await?;
                let token = match session_token_file {
                    Some(file) => Some(read_file("session_token_file", file).await?.trim().to_owned()),
                    None => None,
                };
                keys(access_key_id, &secret, token).map_err(|fault| {
                    let files = self.files().iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
                    format!("{fault}; read from {}", files.join(" and "))
                })
            }
            Self::Profile { file, profile } => {
                let text = read_file("credentials_file", file).await?;
                let section = section(&text, profile)
                    .ok_or_else(|| format!("[recordings] credentials_profile: {profile}: not in {}", file.display()))?;
                let value =
                    |name: &str| section.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
                let token = value("aws_session_token").map(str::to_owned);
                let (id, secret) = (value("aws_access_key_id"), value("aws_secret_access_key"));
                let keys = keys(id.unwrap_or_default(), secret.unwrap_or_default(), token);
                keys.map_err(|fault| format!("{fault}; read from {}, profile {profile}", file.display()))
            }
        }
    }
}

/// Keys that can be sent: what is not printable ASCII would break the header that carries it.
fn keys(id: &str, secret: &str, token: Option<String>) -> Result<AwsCredentials, String> {
    let (id, secret) = (id.trim(), secret.trim());
    let fits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    for (name, text) in
        [("access_key_id", Some(id)), ("secret_access_key", Some(secret)), ("session_token", token.as_deref())]
    {
        if text.is_some_and(|text| !fits(text)) {
            return Err(format!("[recordings] {name}: empty, or has other than printable ASCII letters"));
        }
    }
    Ok(AwsCredentials::new(id, secret, token, None))
}

async fn read_file(setting: &str, file: &Path) -> Result<String, String> {
    let cannot = |why: &dyn fmt::Display| {
        let remedy = "correct the path, or let this user read the file";
        format!("[recordings] {setting}: {}: {why}; {remedy}", file.display())
    };
    let length = tokio::fs::metadata(file).await.map_err(|error| cannot(&error))?.len();
    if length > MOST_FILE {
        return Err(cannot(&"too large for keys"));
    }
    // Not the error of a text that is not UTF-8: it would hold the bytes.
    let bytes = tokio::fs::read(file).await.map_err(|error| cannot(&error))?;
    String::from_utf8(without_mark(&bytes).to_vec()).map_err(|_| cannot(&"not text"))
}

/// The pairs of `[name]`.
fn section<'a>(text: &'a str, name: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| header(line) != Some(name));
    lines.next()?;
    let pairs = lines.take_while(|line| header(line).is_none()).filter(|line| !line.starts_with(['#', ';']));
    Some(pairs.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect())
}

fn header(line: &str) -> Option<&str> {
    Some(line.strip_prefix('[')?.split_once(']')?.0.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(file: &Path) -> Credentials {
        Credentials::Profile { file: file.to_owned(), profile: "call recordings".to_owned() }
    }

    const FILE: &str = "[default]\naws_access_key_id = OTHER\naws_secret_access_key = other\n\
                        [call recordings] ; ours\n# a comment = x\nAWS_ACCESS_KEY_ID=ID\r\n\
                        aws_secret_access_key = s3cr=t/+\naws_session_token=tok\n\n[next]\naws_access_key_id=N\n";

    #[tokio::test]
    async fn a_profile_is_read_from_a_shared_credentials_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, FILE).unwrap();
        let keys = profile(&file).read().await.unwrap();
        assert_eq!(
            (keys.aws_access_key_id(), keys.aws_secret_access_key(), keys.token().as_deref()),
            ("ID", "s3cr=t/+", Some("tok"))
        );
        std::fs::write(&file, FILE.replace("call recordings", "calls")).unwrap();
        assert!(
            profile(&file)
                .read()
                .await
                .unwrap_err()
                .contains("[recordings] credentials_profile: call recordings: not in")
        );
    }

    #[tokio::test]
    async fn a_byte_order_mark_is_no_part_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "\u{feff}[call recordings]\naws_access_key_id=ID\naws_secret_access_key=s\n").unwrap();
        assert_eq!(profile(&file).read().await.unwrap().aws_access_key_id(), "ID");
        std::fs::write(&file, "\u{feff}s3cr3t\r\n").unwrap();
        let secret_access_key_file = file.clone();
        let source = Credentials::SecretFile {
            access_key_id: "ID".to_owned(),
            secret_access_key_file,
            session_token_file: Some(file),
        };
        let keys = source.read().await.unwrap();
        assert_eq!((keys.aws_secret_access_key(), keys.token().as_deref()), ("s3cr3t", Some("s3cr3t")));
    }

    #[tokio::test]
    async fn refused_keys_are_read_again_at_once_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "one\n").unwrap();
        let source = Credentials::SecretFile {
            access_key_id: "ID".to_owned(),
            secret_access_key_file: file.clone(),
            session_token_file: None,
        };
        let keyring = Keyring::open(source).await.unwrap();
        let secret = async || keyring.credentials().await.unwrap().aws_secret_access_key().to_owned();
        assert_eq!(secret().await, "one");
        assert!(!keyring.renew(0).await, "the same keys");
        std::fs::write(&file, "two\n").unwrap();
        assert!(keyring.renew(0).await);
        assert_eq!(secret().await, "two");
        assert!(keyring.renew(0).await, "a refusal of the first keys says nothing of the second");
        for broken in [&b""[..], b"\n", b"\xff\xfe", b"a b"] {
            std::fs::write(&file, broken).unwrap();
            let told = keyring.source.read().await.unwrap_err();
            assert!(told.contains("[recordings] secret_access_key") && told.contains(file.to_str().unwrap()), "{told}");
            assert!(!keyring.renew(1).await);
            assert_eq!(secret().await, "two");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(!keyring.renew(1).await);
    }

    #[tokio::test]
    async fn a_changed_file_is_noticed_without_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, FILE).unwrap();
        let keyring = Keyring::open(profile(&file)).await.unwrap();
        std::fs::write(&file, FILE.replace("s3cr=t/+", "another one".replace(' ', "-").as_str())).unwrap();
        keyring.held.lock().await.looked_at = Instant::now().checked_sub(LOOK_INTERVAL).unwrap();
        assert_eq!(keyring.credentials().await.unwrap().aws_secret_access_key(), "another-one");
    }

    #[tokio::test]
    async fn no_secret_is_shown() {
        let source = Credentials::Static {
            access_key_id: "ID".to_owned(),
            secret_access_key: "s3cr3t".into(),
            session_token: Some("t0ken".into()),
        };
        let shown = format!("{source:?} {:?}", Keyring::open(source.clone()).await.unwrap());
        assert!(!shown.contains("s3cr3t") && !shown.contains("t0ken"), "{shown}");
        let source = Credentials::Static {
            access_key_id: "ID".to_owned(),
            secret_access_key: "s3 cr3t".into(),
            session_token: None,
        };
        let error = Keyring::open(source).await.unwrap_err();
        assert!(error.starts_with("[recordings] secret_access_key: ") && !error.contains("cr3t"), "{error}");
    }
}
