//! What the table of the settings is made of: sections, keys, and the macro that makes both and the structs from it.
//!
//! A setting is one entry of [`settings!`]: from it come the field, its reading, its names in file and environment,
//! its line of `config.default.toml`, and the words of its mistakes. A kind of another type than the field does not
//! compile.

/// A section of the file.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    /// The lines of its comment, each with the blank before it.
    about: &'static str,
    pub(super) keys: &'static [SettingKey],
}

/// A setting.
#[derive(Debug)]
pub(super) struct SettingKey {
    pub(super) name: &'static str,
    pub(super) preset: Preset,
    pub(super) needed: Needed,
    /// What it is, with its unit; with the blank before it.
    meaning: &'static str,
    /// Why one would change it; of a key without a default, what else there is to know, if anything.
    pub(super) change: &'static str,
    /// Variables of OpenTelemetry that give it where nothing of ours does; the first one counts.
    pub(super) standard: &'static [&'static str],
    /// Whether it may be given in a file of its own, and is never shown.
    pub(super) is_secret: bool,
}

/// The value of a key that is not given, as TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    /// This value.
    Default(&'static str),
    /// None; a value looks like this. Of a secret: the path of its file.
    Example(&'static str),
}

/// When a key without a default has to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// Never: it has a default, or its absence means something.
    Never,
    /// By whatever works for one tenant.
    Tenant,
    /// By whatever calls NICE, unless the database holds the NICE settings.
    Nice,
    /// As [`Needed::Nice`], for the OAuth flow.
    Oauth,
    /// By the webhook.
    Webhook,
    /// By whatever uses RabbitMQ.
    Rabbitmq,
    /// By whatever uses PostgreSQL.
    Postgres,
    /// By whatever reads sealed secrets from PostgreSQL.
    Sealed,
    /// By whatever stores recordings in S3.
    S3,
    /// As [`Needed::S3`], unless a file holds the key.
    S3Key,
}

/// How a value is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As itself.
    Value,
    /// As the path of a file that holds it.
    SecretFile,
}

/// Makes the structs and the table of settings from one entry for each:
///
/// ```text
/// /// What it is, with its unit.
/// key: Type = KIND, default(VALUE), "Why one would change it.";
/// /// What it is; the field is an `Option`.
/// key: Type = KIND, example(VALUE, When it is needed), "What else there is to know, or nothing";
/// ```
///
/// Behind the last text may stand `or(VARIABLE, …)`: what others call it in the environment.
///
/// `VALUE` is written as in the file. `KIND` is one of `value.rs`, and gives the type of the field.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $meaning:literal])+
                $key:ident: $type:ty = $kind:expr, $preset:ident($value:tt $(, $needed:ident)?), $change:literal
                    $(, or($($standard:expr),+))?;
            )+
        }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone)]
            pub(crate) struct $Section {
                $($(#[doc = $meaning])+ pub(crate) $key: settings!(@type $preset $type),)+
            }
        )+

        /// The settings, each section a struct of its own.
        #[derive(Debug, Clone)]
        pub(crate) struct Settings {
            $($(#[doc = $about])+ pub(crate) $section: $Section,)+
        }

        impl Settings {
            /// Reads every key in the order of the table.
            pub(super) fn read(reader: &mut SettingsReader<'_>) -> Self {
                Self {
                    $($section: $Section {
                        $($key: reader.$preset(&$kind),)+
                    },)+
                }
            }
        }

        /// Every section, in the order of the page.
        pub(super) const SECTIONS: &[Section] = &[$(
            Section::new(stringify!($section), concat!($($about),+), &[$(
                SettingKey::new(
                    stringify!($key),
                    settings!(@preset $preset $value),
                    settings!(@needed $($needed)?),
                    concat!($($meaning),+),
                    $change,
                    &[$($($standard),+)?],
                    { const KIND: ValueKind<$type> = $kind; KIND.is_secret },
                ),
            )+]),
        )+];
    };
    (@type default $type:ty) => { $type };
    (@type example $type:ty) => { Option<$type> };
    (@preset default $value:tt) => { Preset::Default(stringify!($value)) };
    (@preset example $value:tt) => { Preset::Example(stringify!($value)) };
    (@needed) => { Needed::Never };
    (@needed $needed:ident) => { Needed::$needed };
}
pub(super) use settings;

impl Section {
    pub(super) const fn new(name: &'static str, about: &'static str, keys: &'static [SettingKey]) -> Self {
        Self { name, about, keys }
    }

    /// What it is about.
    pub(super) fn about(&self) -> &'static str {
        self.about.trim_start()
    }
}

impl SettingKey {
    pub(super) const fn new(
        name: &'static str,
        preset: Preset,
        needed: Needed,
        meaning: &'static str,
        change: &'static str,
        standard: &'static [&'static str],
        is_secret: bool,
    ) -> Self {
        Self { name, preset, needed, meaning, change, standard, is_secret }
    }

    /// What it is, with its unit.
    pub(super) fn meaning(&self) -> &'static str {
        self.meaning.trim_start()
    }

    /// The key under which it is given, or under which a file that holds it is named.
    pub(super) fn written(&self, form: Form) -> String {
        match form {
            Form::Value => self.name.to_owned(),
            Form::SecretFile => format!("{}_file", self.name),
        }
    }

    /// The forms in which it may be given.
    pub(super) fn forms(&self) -> &'static [Form] {
        if self.is_secret { &[Form::Value, Form::SecretFile] } else { &[Form::Value] }
    }
}

/// The name of a key in the environment.
pub(super) fn environment_name(section: &str, written: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}__{}", section.to_ascii_uppercase(), written.to_ascii_uppercase())
}

/// What the names of all settings in the environment begin with.
pub(super) const ENVIRONMENT_PREFIX: &str = "NICE_KNOVVU_";
