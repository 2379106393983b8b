//! Sizes for people, the same in every message of every surface.

/// `456 B`, `1.2 KiB`, `4.3 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    size_of(bytes as f64)
}

/// As [`size`], of a rate for example.
#[must_use]
pub fn size_of(bytes: f64) -> String {
    if bytes < 1023.5 {
        return format!("{bytes:.0} B");
    }
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes / 1024.0, 0);
    // Not 1024: `1024.0 KiB` would be shown.
    while value >= 1023.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_never_1024_of_a_unit() {
        let shown = [0, 456, 1023, 1024, 1229, 12_698, 1_048_524, 1_048_525, 4_508_877, 1 << 30, u64::MAX].map(size);
        let expected = [
            "0 B",
            "456 B",
            "1023 B",
            "1.0 KiB",
            "1.2 KiB",
            "12.4 KiB",
            "1023.9 KiB",
            "1.0 MiB",
            "4.3 MiB",
            "1.0 GiB",
            "16.0 EiB",
        ];
        assert_eq!(shown, expected);
    }
}
