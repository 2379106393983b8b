//! The tables that patterns of `exclude_tables` mean.

/// Whether the whole of `name` matches `pattern`, where `*` stands for any
/// letters, and ASCII letters are the same in both cases.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    matches_bytes(pattern.as_bytes(), name.as_bytes())
}

/// Whether `pattern` means the table `name`, which may be `SCHEMA.NAME`: the
/// pattern is one of that where it has a dot.
pub(crate) fn means(pattern: &str, name: &str) -> bool {
    let bare = name.split_once('.').map_or(name, |(_, bare)| bare);
    matches(pattern, name) || (!pattern.contains('.') && matches(pattern, bare))
}

fn matches_bytes(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| matches_bytes(rest, &name[skipped..])),
        ([one, rest @ ..], [letter, others @ ..]) => one.eq_ignore_ascii_case(letter) && matches_bytes(rest, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_in_any_case() {
        for (pattern, name) in [("metrics_*", "METRICS_a"), ("*", ""), ("*log*", "a_Log_b"), ("a*b*c", "aXbYc")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("metrics_*", "my_metrics_a"), ("log", "logs"), ("", "a"), ("a*b", "abc")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
