//! Numbers as logs have them.

/// Reads a decimal number such as `12.34` as thousandths; `None` for anything else. More than three decimals are rounded.
pub(crate) fn thousandths(text: &[u8]) -> Option<u64> {
    let (mut value, mut decimals, mut has_digit) = (0u64, None, false);
    let mut round_up = false;
    for &byte in text {
        match byte {
            b'0'..=b'9' => {
                has_digit = true;
                let digit = u64::from(byte - b'0');
                match &mut decimals {
                    Some(3) => {
                        round_up = digit >= 5;
                        decimals = Some(4);
                    }
                    Some(count @ 0..=2) => {
                        *count += 1;
                        value = value.checked_mul(10)?.checked_add(digit)?;
                    }
                    Some(_) => {}
                    None => value = value.checked_mul(10)?.checked_add(digit)?,
                }
            }
            b'.' if decimals.is_none() => decimals = Some(0),
            b'e' | b'E' if has_digit => return exponent(text),
            _ => return None,
        }
    }
    let missing = 3 - decimals.unwrap_or(0).min(3);
    let value = value.checked_mul(10u64.pow(missing))?;
    has_digit.then(|| value.saturating_add(u64::from(round_up)))
}

/// Numbers such as `1.28E8`, as CloudWatch Logs Insights writes large ones.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in the range")]
fn exponent(text: &[u8]) -> Option<u64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let value = (value * 1_000.0).round();
    (0.0..9e15).contains(&value).then_some(value as u64)
}

/// Reads a whole number. Decimals are allowed and rounded up, as a billed duration is.
pub(crate) fn parse_rounded_up(text: &[u8]) -> Option<u64> {
    Some(thousandths(text)?.div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_thousandths() {
        for (text, expected) in [
            ("0.42", Some(420)),
            ("3000", Some(3_000_000)),
            ("12.345", Some(12_345)),
            ("12.3456", Some(12_346)),
            ("12.34549", Some(12_345)),
            ("1.28E8", Some(128_000_000_000)),
            (".5", Some(500)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("1ms", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(thousandths(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse_rounded_up(b"3.01"), Some(4));
    }
}
