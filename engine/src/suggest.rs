//! Suggests a known name for one that does not exist.
//!
//! The time and memory of a comparison grow with the product of both lengths, and names come from
//! outside: no suggestion is made for one that is much too long.

/// Longest name for which a suggestion is made, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// Returns the candidate with the smallest edit distance to `name`, if that is at most
/// `distance_max`.
pub(crate) fn suggest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    distance_max: usize,
) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let length = name.chars().count();
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= distance_max)
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_within_the_distance_is_found() {
        let names = ["virtual_uid_maps", "virtual_gid_maps", "listen"];
        let found = |name| suggest(name, names, 2);
        assert_eq!(found("virtual_uid_map"), Some("virtual_uid_maps"));
        assert_eq!(found("vitrual_gid_maps"), Some("virtual_gid_maps"));
        assert_eq!(found("smtpd_banner"), None);
        assert_eq!(suggest("lisen", names, usize::MAX), Some("listen"));
    }

    #[test]
    fn a_name_without_end_is_like_nothing() {
        let endless = "x".repeat(10_000_000);
        assert_eq!(suggest(&endless, ["listen"], usize::MAX), None);
    }
}
