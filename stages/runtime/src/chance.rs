//! Chance, so that a simulation can repeat it: the machine's on a simulated [`Machine`], else `rand`'s own.
//!
//! Secrets that two runs must not share (a nonce, the token of the admin address) come from `rand` itself, always.

use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::distr::{Distribution, StandardUniform};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::machine::Machine;

/// A value of the range, each as likely as the others.
pub fn range<T: SampleUniform>(range: impl SampleRange<T>) -> T {
    with(|rng| rng.random_range(range))
}

/// Any value of the type, each as likely as the others.
pub fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    with(|rng| rng.random())
}

/// Lends a generator to what needs one of its own.
pub fn with<R>(draw: impl FnOnce(&mut dyn RngCore) -> R) -> R {
    match Machine::current() {
        None => {
            #[expect(clippy::disallowed_methods, reason = "the one place where chance begins")]
            let mut rng = rand::rng();
            draw(&mut rng)
        }
        Some(machine) => {
            // One of its own: `draw` may ask for chance itself.
            let mut rng = StdRng::from_rng(&mut *machine.chance());
            draw(&mut rng)
        }
    }
}
