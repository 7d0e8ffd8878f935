//! Values as they were written, before their kind has read them.
//!
//! A fault that is empty means: the type or the bounds are already the whole mistake.

use std::path::PathBuf;

/// A value as it was written.
pub(in crate::config) enum Raw {
    /// From the environment, where everything is text.
    Typeless(String),
    /// The same from a variable that is not ours, but OpenTelemetry's.
    Standard { name: &'static str, text: String },
    /// The text of a secret file.
    Held { text: String, file: PathBuf },
    /// A TOML string.
    Text(String),
    /// A TOML integer; none where it does not fit 64 bits.
    Integer(Option<i64>),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// Any other TOML value, by its name.
    Other(&'static str),
    /// Not text at all, and already reported.
    Unreadable,
}

impl Raw {
    /// The text, where it is one.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Typeless(text) | Self::Standard { text, .. } | Self::Text(text) | Self::Held { text, .. } => Ok(text),
            _ => Err(String::new()),
        }
    }

    /// The text of a value that has a unit; a bare number goes on as text, and is told there what it lacks.
    pub(super) fn with_unit(&self) -> Result<String, String> {
        match self {
            Self::Integer(Some(number)) => Ok(number.to_string()),
            Self::Integer(None) | Self::Float(_) => Err("a bare number has no unit".to_owned()),
            _ => self.text().map(str::to_owned),
        }
    }

    /// The boolean.
    pub(super) fn flag(&self) -> Result<bool, String> {
        match self {
            Self::Flag(flag) => Ok(*flag),
            Self::Typeless(text) | Self::Standard { text, .. } => text.parse().map_err(|_| String::new()),
            _ => Err(String::new()),
        }
    }

    /// The whole number within the bounds.
    pub(super) fn count(&self, least: u32, most: u32) -> Result<u32, String> {
        let number = match self {
            Self::Integer(number) => *number,
            Self::Typeless(text) | Self::Standard { text, .. } => text.parse::<i64>().ok(),
            _ => None,
        };
        number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (least..=most).contains(number))
            .ok_or_default()
    }

    /// The number from 0 to 1.
    pub(super) fn share(&self) -> Result<f64, String> {
        let number = match self {
            Self::Integer(Some(0)) => Some(0.0),
            Self::Integer(Some(1)) => Some(1.0),
            Self::Float(number) => Some(*number),
            Self::Typeless(text) | Self::Standard { text, .. } => text.parse().ok(),
            _ => None,
        };
        number.filter(|number| (0.0..=1.0).contains(number)).ok_or_default()
    }

    /// A number from 0 to 0.999.
    pub(super) fn quantile(&self) -> Result<f64, String> {
        Some(self.share()?).filter(|share| *share <= 0.999).ok_or_default()
    }

    /// The elements; in the environment a TOML array, or texts between commas.
    pub(super) fn list(&self, element: impl Fn(&Raw) -> Result<String, String>) -> Result<Vec<String>, String> {
        match self {
            Self::List(elements) => elements.iter().map(element).collect(),
            Self::Typeless(text) | Self::Standard { text, .. } if text.trim_start().starts_with('[') => {
                let Ok(array) = toml::de::DeValue::parse(text) else { return Err("not a TOML array".to_owned()) };
                Self::from(array.get_ref()).list(element)
            }
            Self::Typeless(text) | Self::Standard { text, .. } => {
                Ok(text.split(',').map(|part| part.trim().to_owned()).collect())
            }
            _ => Err(String::new()),
        }
    }

    /// The value that is written so in TOML.
    pub(in crate::config) fn from_toml(text: &str) -> Self {
        toml::de::DeValue::parse(text).map_or(Self::Unreadable, |value| value.get_ref().into())
    }

    /// The type in words.
    pub(in crate::config) fn type_name(&self) -> &'static str {
        match self {
            Self::Typeless(text) | Self::Standard { text, .. } | Self::Text(text) | Self::Held { text, .. } => {
                if text.trim().is_empty() { "an empty text" } else { "a text that does not fit" }
            }
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Flag(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Other(name) => name,
            Self::Unreadable => "bytes that are no text",
        }
    }

    /// The value in words; a text that is long or could carry a password is not repeated.
    pub(super) fn shown(&self) -> String {
        /// Longer than any value that is a word, a number or a time.
        const LONGEST: usize = 40;
        match self {
            Self::Typeless(text) | Self::Standard { text, .. } | Self::Text(text) => {
                match text.contains(['@', '?']) || text.len() > LONGEST {
                    true => format!("a text of {} characters", text.chars().count()),
                    false => quoted(text),
                }
            }
            Self::Integer(Some(number)) => format!("the number {number}"),
            Self::Integer(None) => "a huge number".to_owned(),
            Self::Float(number) => format!("the number {number:?}"),
            Self::Flag(flag) => format!("the boolean {flag}"),
            Self::List(_) | Self::Other(_) | Self::Held { .. } | Self::Unreadable => self.type_name().to_owned(),
        }
    }
}

impl From<&toml::de::DeValue<'_>> for Raw {
    fn from(value: &toml::de::DeValue<'_>) -> Self {
        use toml::de::DeValue;
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => Self::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
            DeValue::Float(number) => Self::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Array(elements) => Self::List(elements.iter().map(|element| element.get_ref().into()).collect()),
            DeValue::Datetime(_) => Self::Other("a date or time without quotes"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }
}

/// `None` as a fault whose type and bounds are already the whole mistake.
trait OrDefault<T> {
    fn ok_or_default(self) -> Result<T, String>;
}

impl<T> OrDefault<T> for Option<T> {
    fn ok_or_default(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

/// The text in quotes, as TOML reads it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.replace(|c: char| c.is_control(), "\u{fffd}")).to_string()
}
