//! Words in colour, on a terminal that shows it: stdout decides, and `NO_COLOR` or `TERM=dumb` say no.

use std::io::IsTerminal;
use std::sync::LazyLock;

static IS_COLOURED: LazyLock<bool> = LazyLock::new(|| {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_plain
});

/// It is as it should be.
pub(crate) fn good(text: &str) -> String {
    painted(text, "32")
}

/// A person should look today.
pub(crate) fn warn(text: &str) -> String {
    painted(text, "33")
}

/// A person should look now.
pub(crate) fn bad(text: &str) -> String {
    painted(text, "1;31")
}

fn painted(text: &str, code: &str) -> String {
    match *IS_COLOURED {
        true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_no_terminal_is_plain() {
        assert_eq!(painted("well", "32"), "well");
    }
}
