//! Chance that repeats: every draw is a pure function of a seed and a label.
//!
//! The generator is splitmix64, written out here so that a seed means the same day whatever version of a random number
//! library is in the build.

/// The step of splitmix64: 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Scatters the bits of `x`: the output function of splitmix64.
#[inline(always)]
pub(crate) fn scatter(x: u64) -> u64 {
    let mut z = x.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The `counter`-th word of the stream of `seed`; any position costs the same.
#[inline(always)]
pub(crate) fn word(seed: u64, counter: u64) -> u64 {
    scatter(seed.wrapping_add(counter.wrapping_mul(GOLDEN)))
}

/// A seed derived from another one and a label, so that two uses never share a stream.
pub(crate) fn derive(seed: u64, label: &str) -> u64 {
    // FNV-1a: short labels, no adversary.
    let hash = label
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    scatter(seed ^ hash)
}

/// A run of draws.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    /// Starts the run that belongs to `seed` and `label`.
    pub(crate) fn new(seed: u64, label: &str) -> Self {
        Self { seed: derive(seed, label), drawn: 0 }
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.drawn += 1;
        word(self.seed, self.drawn)
    }

    /// A number from 0 to 1, 1 excluded.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in the given share of draws.
    pub(crate) fn hits(&mut self, share: f64) -> bool {
        self.fraction() < share
    }

    /// A number from `low` to `high`, both included; `low` where the range is empty.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        match (high - low).checked_add(1) {
            Some(width) => low + self.bits() % width,
            None => self.bits(),
        }
    }

    /// One of the items, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.between(0, items.len() as u64 - 1) as usize]
    }

    /// A UUID in its usual text form.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.bits(), self.bits());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xFFFF,
            high & 0xFFF,
            0x8000 | ((low >> 48) & 0x3FFF),
            low & 0xFFFF_FFFF_FFFF
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_and_label_give_one_run() {
        let run = |seed, label| {
            let mut dice = Dice::new(seed, label);
            (0..8).map(|_| dice.bits()).collect::<Vec<_>>()
        };
        assert_eq!(run(1, "calls"), run(1, "calls"));
        assert_ne!(run(1, "calls"), run(2, "calls"));
        assert_ne!(run(1, "calls"), run(1, "agents"));
    }

    #[test]
    fn between_keeps_its_bounds() {
        let mut dice = Dice::new(7, "bounds");
        assert!((0..1000).all(|_| (3..=5).contains(&dice.between(3, 5))));
        assert_eq!(dice.between(9, 2), 9);
    }
}
