//! Query strings: `a=1&b=%2F`.

/// Keys and values in order, percent-decoded.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

/// The first value of a key.
pub(super) fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

/// The first value of a key as a number, `or` when there is none or it is not a number.
pub(super) fn number(pairs: &[(String, String)], key: &str, or: u64) -> u64 {
    value(pairs, key).and_then(|text| text.parse().ok()).unwrap_or(or)
}

/// Decodes `%2F` and `+`; what is not a valid escape stays as it is.
pub(super) fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(code)) => {
                out.push(code);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        rest = after;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_half_escapes_kept() {
        assert_eq!(decode("BTC%2FUSD+x%4"), "BTC/USD x%4");
        let pairs = pairs("symbol=BTC%2FUSD&limit=5&flag");
        assert_eq!(value(&pairs, "symbol"), Some("BTC/USD"));
        assert_eq!(number(&pairs, "limit", 9), 5);
        assert_eq!(number(&pairs, "flag", 9), 9);
    }
}
