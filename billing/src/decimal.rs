//! Decimal numbers as exact integers of 10⁻¹².
//!
//! Exports write costs with up to 15 decimals and quantities with up to 15. More than twelve are rounded, half away from zero.

/// Units of 10⁻¹² in one.
pub const PICO: i128 = 1_000_000_000_000;

/// Decimals that are kept.
const DECIMALS: i32 = 12;

/// Maximum number of digits, because more do not fit in an `i128` after scaling.
const MAX_DIGITS: usize = 36;

/// Largest number that is read, in 10⁻¹²: sums of many of them do not overflow.
const MAX: i128 = 1_000_000_000_000_000_000 * PICO;

/// Reads a number such as `0.0000166667`, `-12` or `2.5E-7`; `None` when it is not one, or larger than 10¹⁸.
#[must_use]
pub fn parse(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix('+');
            (mantissa, digits.unwrap_or(exponent).parse::<i32>().ok()?)
        }
        None => (text, 0),
    };
    let (is_negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && decimals.is_empty())
        || !whole.bytes().chain(decimals.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let decimals_count = i32::try_from(decimals.len()).ok()?;
    let mut number: i128 = 0;
    let mut read = 0;
    let mut skipped = 0;
    for byte in whole.bytes().chain(decimals.bytes()).skip_while(|byte| *byte == b'0') {
        if read == MAX_DIGITS {
            skipped += 1;
        } else {
            number = number * 10 + i128::from(byte - b'0');
            read += 1;
        }
    }
    let shift = DECIMALS.checked_add(exponent)?.checked_sub(decimals_count)?.checked_add(skipped)?;
    let scaled = scale(number, shift)?;
    (scaled <= MAX).then_some(if is_negative { -scaled } else { scaled })
}

/// `number × 10^shift`, rounded half up; `None` when it overflows.
fn scale(number: i128, shift: i32) -> Option<i128> {
    if number == 0 {
        return Some(0);
    }
    match u32::try_from(shift) {
        Ok(up) => number.checked_mul(10_i128.checked_pow(up)?),
        // A power that does not fit is more than twice the number.
        Err(_) => {
            Some(10_i128.checked_pow(shift.unsigned_abs()).map_or(0, |power| (number + power / 2) / power))
        }
    }
}

/// Reads a float as the shortest decimal number that means the same float.
#[must_use]
pub fn of_float(number: f64) -> Option<i128> {
    number.is_finite().then(|| parse(&format!("{number:e}")))?
}

/// Writes a number without trailing zeros: `142.628`.
#[must_use]
pub fn format(pico: i128) -> String {
    let (whole, decimals) =
        (pico.unsigned_abs() / PICO.unsigned_abs(), pico.unsigned_abs() % PICO.unsigned_abs());
    let sign = if pico < 0 { "-" } else { "" };
    if decimals == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{decimals:012}").trim_end_matches('0'))
}

/// The number as a float: for ratios, and for columns of floats.
#[must_use]
pub fn to_float(pico: i128) -> f64 {
    // Through its text, because the quotient of two rounded numbers is not the nearest float.
    format(pico).parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_exports_are_read_exactly() {
        for (text, pico) in [
            ("0.00237713810", 2_377_138_100),
            ("142.628000000000000", 142_628 * PICO / 1_000),
            ("-1", -PICO),
            ("2.0E-7", 200_000),
            ("1e3", 1_000 * PICO),
            (".5", PICO / 2),
            ("0.0000000000005", 1),
            ("-0.0000000000004", 0),
            ("0e99", 0),
            ("1e-99", 0),
        ] {
            assert_eq!(parse(text), Some(pico), "{text}");
        }
        for text in ["", ".", "-", "1,5", "NaN", "1e", "1e99", "0x1", "1.2.3", "1e99999999999", "--1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pico in -MAX..=MAX) {
            prop_assert_eq!(parse(&format(pico)), Some(pico));
        }

        #[test]
        fn floats_keep_their_digits(units in 0u64..1 << 52) {
            let pico = i128::from(units);
            prop_assert_eq!(of_float(to_float(pico)), Some(pico));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9.eE]{0,60}") {
            let _ = parse(&text);
        }
    }
}
