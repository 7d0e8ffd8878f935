//! How many agents a process can listen to: each has a connection of its own, and a process so many files.

/// The most agents that are listened to.
pub const MOST_LISTENERS: usize = 10_000;

/// Files that listeners leave to the rest of the process: the state, the servers, and the poll.
const OTHER_FILES: usize = 512;

/// How many agents this process can listen to: [`MOST_LISTENERS`], or as many as it may open files for.
pub fn most_listeners() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    open_files(&limits).map_or(MOST_LISTENERS, |files| files.saturating_sub(OTHER_FILES).min(MOST_LISTENERS))
}

/// The soft limit of open files on Linux's page of limits; none where it has none.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_leave_files_to_the_rest_of_the_process() {
        let page =
            |soft: &str| format!("Limit  Soft Limit\nMax open files            {soft}        524288      files\n");
        assert_eq!(open_files(&page("8192")), Some(8192));
        assert_eq!(open_files(&page("unlimited")), None);
        assert_eq!(open_files(""), None);
        assert!((1..=MOST_LISTENERS).contains(&most_listeners()));
    }
}
