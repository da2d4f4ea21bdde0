//! Numbers as people read them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `41.0 MB`; sizes are decimal.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// `210,442`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.61 s`.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        short if short < 10.0 => format!("{short:.2} s"),
        long => format!("{long:.0} s"),
    }
}

/// `2 h 14 min`, the two largest units.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The local time of day, with the date when it was not today: `09:12` or `2026-11-21 09:12`.
pub fn clock(time: Timestamp) -> String {
    let zoned = time.to_zoned(TimeZone::system());
    let today = Timestamp::now().to_zoned(TimeZone::system()).date();
    match zoned.date() == today {
        true => zoned.strftime("%H:%M").to_string(),
        false => zoned.strftime("%Y-%m-%d %H:%M").to_string(),
    }
}

/// `1 service`, `2 services`, of a `usize` or a `u64`.
pub fn plural(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{} {noun}s", count(number)),
    }
}

/// How long ago.
pub fn since(time: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(time)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(210_442), "210,442");
        assert_eq!(count(999), "999");
        assert_eq!(megabytes(41_000_000), "41.0 MB");
        assert_eq!(span(Duration::from_secs(8040)), "2 h 14 min");
        assert_eq!(plural(1, "service"), "1 service");
    }
}
