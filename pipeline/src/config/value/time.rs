//! Durations, rates, times of day and time zones as they are written in the settings.

use std::time::Duration;

use jiff::{civil::Time, tz::TimeZone};
use model::ImportSince;
use quota::Rate;

/// Ten years: longer than anything here lasts, and far from where the arithmetic of clocks overflows.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// The longest list of delays: the broker keeps one queue for each step.
const MOST_STEPS: usize = 32;

/// The greatest rate: the limiter remembers each request of its window.
const MOST_REQUESTS: u32 = 1_000_000;

/// The units with their milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `15s`, `10m`, `48h`, `3d`, `200ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("a duration is a number with its unit".to_owned());
    }
    if unit.is_empty() {
        return Err(format!("a bare number has no unit; write \"{number}s\" if seconds are meant"));
    }
    let Some((_, millis)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err("the unit is not one of ms, s, m, h, d".to_owned());
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*millis))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "longer than 3650d".to_owned())
}

/// Reads a duration that may not be zero.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        interval => Ok(interval),
    }
}

/// Reads how long something is kept: at least a day, for which a call may be on its way.
pub(super) fn retention(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        kept if kept < Duration::from_secs(86_400) => Err("shorter than a day".to_owned()),
        kept => Ok(kept),
    }
}

/// Reads how far back something reaches: a duration, or a moment with its offset.
pub(super) fn since(text: &str) -> Result<ImportSince, String> {
    if text.contains('-') {
        return text.parse().map(ImportSince::At).map_err(|_| "not a moment with its offset".to_owned());
    }
    duration(text).map(ImportSince::Before)
}

/// Reads the steps of a delay.
pub(super) fn delays(texts: &[String]) -> Result<Vec<Duration>, String> {
    if texts.is_empty() || texts.len() > MOST_STEPS {
        return Err(format!("{} steps, where 1 to {MOST_STEPS} are possible", texts.len()));
    }
    texts.iter().map(|text| interval(text).map_err(|fault| format!("{}: {fault}", super::raw::quoted(text)))).collect()
}

/// Reads `150/5m` and `2/s`.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let Some((limit, window)) = text.split_once('/') else {
        return Err("a rate names its window after a slash".to_owned());
    };
    let limit = match limit.parse::<u32>() {
        Ok(limit @ 1..=MOST_REQUESTS) => limit,
        _ => return Err(format!("the number of requests is a whole number from 1 to {MOST_REQUESTS}")),
    };
    let window = if window.starts_with(|first: char| first.is_ascii_digit()) {
        interval(window)
    } else {
        interval(&format!("1{window}"))
    };
    Ok(Rate { limit, window: window.map_err(|fault| format!("the window: {fault}"))? })
}

/// A rate as one would write it.
pub(super) fn rate_text(rate: Rate) -> String {
    let window = duration_text(rate.window);
    let one_unit = window.strip_prefix('1').filter(|unit| unit.starts_with(|first: char| first.is_alphabetic()));
    format!("{}/{}", rate.limit, one_unit.unwrap_or(&window))
}

/// Reads `02:00`.
pub(super) fn time_of_day(text: &str) -> Result<Time, String> {
    let two = |digits: &str| {
        (digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse::<i8>().ok())?
    };
    text.split_once(':')
        .and_then(|(hour, minute)| Time::new(two(hour)?, two(minute)?, 0, 0).ok())
        .ok_or_else(|| "not a time of day".to_owned())
}

/// Reads a name of the IANA time zone database.
pub(super) fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| "not a known time zone".to_owned())
}

/// A duration as one would write it: in the largest unit that leaves no fraction.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, size) = match millis {
        0 => ("s", 1),
        _ => UNITS
            .into_iter()
            .find(|(_, size)| millis.is_multiple_of(u128::from(*size)))
            .expect("one millisecond divides every number of them"),
    };
    format!("{}{unit}", millis / u128::from(size))
}
