//! What somebody may have meant by a name that does not exist.
//!
//! Imports nothing. Measuring takes time and memory by the product of both lengths, and names
//! come from outside: those that are much too long are like nothing.

/// Names longer than this, in bytes, are nobody's slip of the finger.
const NAME_BYTES_MAX: usize = 200;

/// The candidate nearest to `name`, when it is no more than `distance_max` slips away.
pub(crate) fn nearest<'a>(
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
        let found = |name| nearest(name, names, 2);
        assert_eq!(found("virtual_uid_map"), Some("virtual_uid_maps"));
        assert_eq!(found("vitrual_gid_maps"), Some("virtual_gid_maps"));
        assert_eq!(found("smtpd_banner"), None);
        assert_eq!(nearest("lisen", names, usize::MAX), Some("listen"));
    }

    #[test]
    fn a_name_without_end_is_like_nothing() {
        let endless = "x".repeat(10_000_000);
        assert_eq!(nearest(&endless, ["listen"], usize::MAX), None);
    }
}
