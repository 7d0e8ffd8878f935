//! Every mistake of a load, together: one line each, in the order of the file.
//!
//! A line names the key as it was written, what is wrong, and the remedy. No line carries the value of a secret.

use std::fmt;

/// The order of mistakes: first those of the file, by position; then the environment; then what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// At this byte of the file.
    File(usize),
    /// In the environment, at this key of the table; an unknown name comes last.
    Environment(usize),
    /// Missing, at this key of the table.
    Missing(usize),
}

/// Every mistake of the settings; `Display` writes one per line.
#[derive(Debug, Default, thiserror::Error)]
pub(crate) struct ConfigErrors {
    lines: Vec<(Rank, String)>,
}

impl ConfigErrors {
    /// Adds a mistake: `place` is the key as written, `fault` what is wrong and the remedy.
    pub(super) fn add(&mut self, rank: Rank, place: &str, fault: impl fmt::Display) {
        self.lines.push((rank, format!("{place}: {fault}")));
    }

    /// A load that failed as a whole.
    pub(super) fn one(place: &str, fault: impl fmt::Display) -> Self {
        let mut errors = Self::default();
        errors.add(Rank::File(0), place, fault);
        errors
    }

    /// `Ok` where no mistake was found; else all of them in their order.
    pub(super) fn into_result(self) -> Result<(), Self> {
        if self.lines.is_empty() { Ok(()) } else { Err(self.sorted()) }
    }

    /// The mistakes in their order.
    pub(super) fn sorted(mut self) -> Self {
        self.lines.sort();
        self
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (_, line)) in self.lines.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}
