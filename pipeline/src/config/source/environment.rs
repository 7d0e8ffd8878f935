//! The environment: variables that begin with `NICE_KNOVVU_`, and those of OpenTelemetry that mean a setting → entries.

use std::ffi::{OsStr, OsString};

use super::{FILE_VARIABLE, find, shown, written_keys};
use crate::config::{
    error::{ConfigErrors, Rank},
    keys::{ENVIRONMENT_PREFIX, Form, SettingKey, environment_name},
    nearest::nearest,
    reader::GivenSetting,
    settings::{self, SECTIONS},
    value::Raw,
};

/// A variable for tests of the crash boundaries; no setting, and without effect in a release.
const CRASH_VARIABLE: &str = "NICE_KNOVVU_CRASH_AT";

/// Reads every variable that is a setting; others that look like one are mistakes.
pub(in crate::config) fn read_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    errors: &mut ConfigErrors,
) -> Vec<GivenSetting> {
    let mut entries = Vec::new();
    let mut switches = StandardSwitches::default();
    for (variable, value) in variables {
        if let Some(entry) = read_standard(&variable, &value) {
            entries.push(entry);
            continue;
        }
        switches.read(&variable, &value);
        if !variable.as_encoded_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes()) {
            continue;
        }
        if let Some(entry) = read_variable(&variable, value, errors) {
            entries.push(entry);
        }
    }
    entries.retain(|entry| match entry.raw {
        Raw::Standard { name, .. } => switches.count(name),
        _ => true,
    });
    entries
}

/// What variables of OpenTelemetry say of those that mean a setting. They are written for every process of a machine or
/// a cluster, so they say as well whom they are not for.
#[derive(Default)]
struct StandardSwitches {
    /// Nothing is to be traced, or in a way that is none of ours.
    is_off: bool,
    /// The sampler is one that has a share.
    has_share: bool,
}

/// The variable that holds the share of what is traced.
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

impl StandardSwitches {
    fn read(&mut self, variable: &OsStr, value: &OsStr) {
        let (Some(name), Some(value)) = (variable.to_str(), value.to_str()) else { return };
        let value = value.trim().to_ascii_lowercase();
        match name {
            "OTEL_SDK_DISABLED" => self.is_off |= value == "true",
            "OTEL_TRACES_EXPORTER" => self.is_off |= !value.is_empty() && !value.split(',').any(|way| way == "otlp"),
            "OTEL_EXPORTER_OTLP_PROTOCOL" | "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" => {
                self.is_off |= !value.is_empty() && value != "http/protobuf";
            }
            "OTEL_TRACES_SAMPLER" => {
                self.is_off |= value.ends_with("always_off");
                self.has_share = value.ends_with("traceidratio");
            }
            _ => {}
        }
    }

    /// Whether this variable counts.
    fn count(&self, name: &str) -> bool {
        !self.is_off && (name != SAMPLER_ARG || self.has_share)
    }
}

/// Reads a variable of OpenTelemetry. An empty one counts as one that is not set, as its specification says.
fn read_standard(variable: &OsStr, value: &OsStr) -> Option<GivenSetting> {
    let of_key = |(key, _, setting): (usize, _, &'static SettingKey)| {
        Some((key, *setting.standard.iter().find(|name| variable == **name)?))
    };
    let (key, name) = settings::all().find_map(of_key)?;
    // What is not UTF-8 is replaced: it is no address, number or header then.
    let text = value.to_string_lossy().into_owned();
    let raw = Raw::Standard { name, text: text.clone() };
    let rank = Rank::Environment(key);
    (!text.is_empty()).then(|| GivenSetting { key, form: Form::Value, place: name.to_owned(), rank, raw })
}

/// Reads one variable that begins as a setting does.
fn read_variable(variable: &OsStr, value: OsString, errors: &mut ConfigErrors) -> Option<GivenSetting> {
    let Some(name) = variable.to_str() else {
        let place = shown(&variable.to_string_lossy());
        errors.add(Rank::Environment(usize::MAX), &place, "the name of the variable is not UTF-8; remove it");
        return None;
    };
    if [FILE_VARIABLE, CRASH_VARIABLE].contains(&name) || is_service_link(name) {
        return None;
    }
    let Some((key, form)) = known(name) else {
        errors.add(Rank::Environment(usize::MAX), &shown(name), unknown(name));
        return None;
    };
    let rank = Rank::Environment(key);
    match value.into_string() {
        Ok(text) => Some(GivenSetting { key, form, place: name.to_owned(), rank, raw: Raw::Typeless(text) }),
        Err(_) => {
            errors.add(rank, name, "the value is not UTF-8; write it in UTF-8");
            Some(GivenSetting { key, form, place: name.to_owned(), rank, raw: Raw::Unreadable })
        }
    }
}

/// The key and form that a variable names; names are upper-case.
fn known(name: &str) -> Option<(usize, Form)> {
    let (section, written) = name.strip_prefix(ENVIRONMENT_PREFIX)?.split_once("__")?;
    if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    find(&section.to_ascii_lowercase(), &written.to_ascii_lowercase()).map(|(key, _, form)| (key, form))
}

/// The remedy for a variable that is no setting.
fn unknown(name: &str) -> String {
    let ways = SECTIONS.iter().flat_map(|section| {
        written_keys(section).into_iter().map(|key| (environment_name(section.name, &key), section.name, key))
    });
    let ways: Vec<_> = ways.collect();
    // What all names have in common must not count as nearness.
    let tail = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name);
    let tails = ways.iter().filter_map(|(way, _, _)| way.strip_prefix(ENVIRONMENT_PREFIX));
    let meant = nearest(tail, tails).and_then(|tail| ways.iter().find(|(way, _, _)| way.ends_with(tail)));
    match meant {
        Some((way, section, key)) => format!("unknown key; did you mean {way} ({key} in [{section}])?"),
        None => format!("unknown key; remove it, settings are named {ENVIRONMENT_PREFIX}SECTION__KEY"),
    }
}

/// Whether Kubernetes made this variable for a service whose name begins with `nice-knovvu`
/// (`…_SERVICE_HOST`, `…_PORT`, `…_PORT_9464_TCP_ADDR`): it appears in every pod beside it, unasked.
fn is_service_link(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("NICE_KNOVVU") else { return false };
    if rest.contains("__") {
        return false;
    }
    let protocol = |tail: &str| {
        let mut parts = tail.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.ends_with("_PORT")
        || rest.split_once("_PORT_").is_some_and(|(_, tail)| protocol(tail))
}
