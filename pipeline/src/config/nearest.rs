//! The word that was probably meant.

/// The candidate nearest to `word`, if a slip of the fingers explains the difference.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= slips(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many slips are plausible: one in every three letters, and never none.
fn slips(candidate: &str) -> usize {
    (candidate.len() / 3).max(1)
}

/// `text` for one line of an error: escaped, and cut if it is long.
pub(super) fn one_line(text: &str) -> String {
    /// Longer than any key; a longer name is noise.
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    shown
}
