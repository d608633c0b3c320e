//! The part of a request's target behind the question mark.

/// The value of `key`, decoded (RFC 3986, 2.1, and `+` for a space); `None` if it is not there,
/// or not text.
pub(super) fn value(query: Option<&str>, key: &str) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(name, _)| *name == key).and_then(|(_, value)| decode(value))
}

/// A text as a value, so that [`value`] gives it back.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_found_by_their_key() {
        let query = Some("filter=port%20a+and%2bb&count=7&bad=%G0&cut=%4");
        assert_eq!(value(query, "filter").as_deref(), Some("port a and+b"));
        assert_eq!(value(query, "count").as_deref(), Some("7"));
        assert_eq!((value(query, "bad"), value(query, "cut")), (None, None));
        assert_eq!((value(query, "ount"), value(None, "count")), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            let query = format!("a=1&text={}&z=2", encode(&text));
            prop_assert_eq!(value(Some(&query), "text"), Some(text));
        }

        #[test]
        fn nothing_panics(query in ".*", key in ".*") {
            let _ = value(Some(&query), &key);
        }
    }
}
