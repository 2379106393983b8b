//! Durations as people write them: `500ms`, `90s`, `15m`, `12h`, `7d`.

use std::time::Duration;

/// The units, longest first, and their milliseconds.
const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// What is expected where a duration stands.
pub(crate) const EXPECTED: &str = "expected a number with a unit, such as 90s, 15m, 12h, 7d or 500ms";

/// A whole number and one unit; anything else is `None`.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*millis).map(Duration::from_millis)
}

/// In the largest unit that shows it whole; [`parse`] reads it back. Less
/// than a millisecond is dropped.
pub(crate) fn shown(duration: Duration) -> String {
    let millis = as_millis(duration);
    // Up to two minutes, seconds are how people write it.
    let is_short = millis <= 120_000;
    let fits =
        |(name, unit): &&(&str, u64)| millis >= *unit && millis.is_multiple_of(*unit) && !(is_short && *name == "m");
    match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => "0s".to_owned(),
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// For `#[serde(with = "…")]`: whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(super::as_millis(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_alike() {
        for (text, millis) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("60s", 60_000),
            ("15m", 900_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
            ("0s", 0),
            ("1001ms", 1001),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(shown(Duration::from_millis(millis)), text);
        }
        assert_eq!(shown(parse("24h").unwrap()), "1d");
        assert_eq!(shown(Duration::from_nanos(1)), "0s");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "90", "90 s", "-1s", "+1s", "1.5h", "1h30m", "1w", "1S", "300000000000d", "９s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
