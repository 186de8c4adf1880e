//! Quantities, read exactly: in whole numbers, as Kubernetes' `resource.Quantity` reads them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffixes that stand for a power of two.
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
/// Suffixes that stand for a power of ten.
const DECIMAL: [(&str, i64); 10] =
    [("", 0), ("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// A quantity in whole units (`Value`), None where the text is none. What is between two of them is rounded away from
/// zero. What an i64 does not hold is the largest or the smallest one, where Go has 0 or a number that has wrapped
/// around; Go also rounds some negative fractions towards zero, and a negative quantity is refused wherever one counts.
pub fn bytes(quantity: &Quantity) -> Option<i64> {
    Some(parse(&quantity.0)?.times_ten_to(0))
}

/// A quantity in thousandths (`MilliValue`), otherwise as [`bytes`].
pub fn millis(quantity: &Quantity) -> Option<i64> {
    Some(parse(&quantity.0)?.times_ten_to(3))
}

/// `digits` times ten to the power of `tens` times two to the power of `twos`.
struct Amount {
    is_negative: bool,
    /// Of any length, the highest first.
    digits: Vec<u8>,
    tens: i64,
    twos: u32,
}

/// Reads a sign, digits with a point among them, and a suffix or an exponent, with spaces around it. As in Go, a text
/// without digits (`m`) is 0, but an empty one is no quantity.
fn parse(text: &str) -> Option<Amount> {
    // Not a line break: Go sees it as an escape of JSON, which is no quantity.
    let text = text.trim_matches(' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit.wrapping_sub(b'0')).collect();
    if text.is_empty() || fraction.contains('.') {
        return None;
    }
    let (tens, twos) = scale(suffix)?;
    let tens = tens.saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX));
    Some(Amount { is_negative: text.starts_with('-'), digits, tens, twos })
}

/// The powers of ten and of two that a suffix stands for.
fn scale(suffix: &str) -> Option<(i64, u32)> {
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((0, *power));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((*power, 0));
    }
    suffix.strip_prefix(['e', 'E'])?.parse().ok().map(|power| (power, 0))
}

impl Amount {
    /// The amount times ten to the power of `power`, as a whole number.
    fn times_ten_to(&self, power: i64) -> i64 {
        let tens = self.tens.saturating_add(power);
        let below = usize::try_from(tens.saturating_neg()).unwrap_or(0);
        let (whole, fraction) = self.digits.split_at(self.digits.len().saturating_sub(below));
        let gap = below.saturating_sub(self.digits.len());
        let size = times(number(whole), 10, u64::try_from(tens).unwrap_or(0));
        let size = times(size, 2, self.twos.into());
        let size = size.saturating_add(fraction_times(fraction, gap, self.twos));
        let size = i128::try_from(size).unwrap_or(i128::MAX);
        let (signed, most) = if self.is_negative { (size.saturating_neg(), i64::MIN) } else { (size, i64::MAX) };
        i64::try_from(signed).unwrap_or(most)
    }
}

/// The number that these digits are.
fn number(digits: &[u8]) -> u128 {
    digits.iter().fold(0, |sum: u128, digit| sum.saturating_mul(10).saturating_add(u128::from(*digit)))
}

/// `number` times `factor`, `count` times; in no more steps than it takes to leave the range.
fn times(number: u128, factor: u128, count: u64) -> u128 {
    let mut product = number;
    for _ in 0..count {
        if product == 0 || product == u128::MAX {
            break;
        }
        product = product.saturating_mul(factor);
    }
    product
}

/// A fraction (its digits behind the point, after `gap` zeros) times two to the power of `twos`, rounded up: by hand, the
/// lowest digit first, for it may have more digits than any type.
fn fraction_times(digits: &[u8], gap: usize, twos: u32) -> u128 {
    let factor = 1_u128.checked_shl(twos).unwrap_or(u128::MAX);
    let (mut carry, mut is_rest) = (0_u128, false);
    let mut step = |carry: u128, digit: u8| {
        let product = factor.saturating_mul(u128::from(digit)).saturating_add(carry);
        is_rest |= product % 10 != 0;
        product / 10
    };
    for digit in digits.iter().rev() {
        carry = step(carry, *digit);
    }
    for _ in 0..gap {
        if carry == 0 {
            break;
        }
        carry = step(carry, 0);
    }
    carry.saturating_add(u128::from(is_rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(i64, i64)> {
        let quantity = Quantity(text.to_owned());
        bytes(&quantity).zip(millis(&quantity))
    }

    /// Texts with what `Value` and `MilliValue` of Kubernetes' `resource.Quantity` are.
    const GO: [(&str, i64, i64); 69] = [
        ("0", 0, 0),
        ("00", 0, 0),
        ("0Gi", 0, 0),
        ("0e100", 0, 0),
        (" 1 ", 1, 1000),
        ("+1", 1, 1000),
        ("-1", -1, -1000),
        ("100m", 1, 100),
        ("250m", 1, 250),
        ("1001m", 2, 1001),
        ("1.5", 2, 1500),
        ("-1.5", -2, -1500),
        ("-0.5", -1, -500),
        (".5", 1, 500),
        ("1.", 1, 1000),
        ("0.1", 1, 100),
        ("0.07", 1, 70),
        ("1.005", 2, 1005),
        ("0.0011", 1, 2),
        ("100u", 1, 1),
        ("1n", 1, 1),
        ("0.0000000001", 1, 1),
        ("1e-400", 1, 1),
        ("1E-3", 1, 1),
        ("1e3", 1000, 1_000_000),
        ("1E3", 1000, 1_000_000),
        ("1e+3", 1000, 1_000_000),
        ("1.5e3", 1500, 1_500_000),
        ("2k", 2000, 2_000_000),
        ("2.675k", 2675, 2_675_000),
        ("512Mi", 536_870_912, 536_870_912_000),
        ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
        ("0.1Ki", 103, 102_400),
        ("0.3Gi", 322_122_548, 322_122_547_200),
        ("1.000000000000000000001Ki", 1025, 1_024_001),
        ("123456789.123456789", 123_456_790, 123_456_789_124),
        ("9007199254740993", 9_007_199_254_740_993, 9_007_199_254_740_993_000),
        ("9007199254740993m", 9_007_199_254_741, 9_007_199_254_740_993),
        ("9223372036854775.807", 9_223_372_036_854_776, i64::MAX),
        ("9223372036854775807m", 9_223_372_036_854_776, i64::MAX),
        ("9223372036854775806m", 9_223_372_036_854_776, 9_223_372_036_854_775_806),
        ("9223372036854775", 9_223_372_036_854_775, 9_223_372_036_854_775_000),
        ("-9223372036854775.8", -9_223_372_036_854_776, -9_223_372_036_854_775_800),
        ("100000000000000000000u", 100_000_000_000_000, 100_000_000_000_000_000),
        ("9223372036854775807u", 9_223_372_036_855, 9_223_372_036_854_776),
        ("9223372036854775807n", 9_223_372_037, 9_223_372_036_855),
        ("0.9223372036854775807", 1, 923),
        ("9.223372036854775807", 10, 9224),
        ("1.0000000001", 2, 1001),
        ("0.0000000001Ei", 115_292_151, 115_292_150_461),
        ("1.1Ki", 1127, 1_126_400),
        ("0.3m", 1, 1),
        ("1.5m", 1, 2),
        ("-0.3m", -1, -1),
        ("-1n", -1, -1),
        ("10e-1", 1, 1000),
        ("0.1e-1", 1, 10),
        ("1E2", 100, 100_000),
        ("00012", 12, 12_000),
        ("+.5", 1, 500),
        ("1.Ki", 1024, 1_024_000),
        (" 1Gi", 1_073_741_824, 1_073_741_824_000),
        // Without digits.
        ("m", 0, 0),
        ("Mi", 0, 0),
        ("-", 0, 0),
        ("+", 0, 0),
        (".", 0, 0),
        ("-.", 0, 0),
        ("e3", 0, 0),
    ];

    #[test]
    fn quantities_are_read_exactly_as_kubernetes_reads_them() {
        for (text, value, milli) in GO {
            assert_eq!(read(text), Some((value, milli)), "{text:?}");
        }
        for (text, value) in [
            ("1000000000000000001", 1_000_000_000_000_000_001),
            ("9223372036854775807", i64::MAX),
            ("4503599627370497Ki", 4_611_686_018_427_388_928),
            ("7Ei", 8_070_450_532_247_928_832),
            ("9E", 9_000_000_000_000_000_000),
            ("1e18", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(read(text), Some((value, i64::MAX)), "{text:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_range_is_its_end() {
        for text in ["12E", "8Ei", "9223372036854775808", "1e400", "99999999999999999999999999999999999999999"] {
            assert_eq!(read(text), Some((i64::MAX, i64::MAX)), "{text:?}");
            assert_eq!(read(&format!("-{text}")), Some((i64::MIN, i64::MIN)), "-{text:?}");
        }
    }

    /// Go has wrapped around or rounded the other way here: Value is 0, 1, -101 and 0.
    #[test]
    fn a_negative_one_is_rounded_away_from_zero_however_long_it_is() {
        for (text, value, milli) in [
            ("-9223372036854775.808", -9_223_372_036_854_776, i64::MIN),
            ("-9223372036854775.807", -9_223_372_036_854_776, -i64::MAX),
            ("-0.1Ki", -103, -102_400),
            ("-1.0000000001", -2, -1001),
        ] {
            assert_eq!(read(text), Some((value, milli)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", " ", "abc", "1Zi", "1K", "1KI", "1gi", "1Mb", "1 Gi", "1m3", "1e", "e", "n3", "1e1.5", "1e3Mi", "1k-3",
            "1e18m", "1..5", "1.5.5", "..", "--1", "+-1", "inf", "NaN", "0x10", "1_000", "1,5", "1\n", "\t1", "１",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
