//! The database's URL and a password that is kept apart from it, put together.

/// Why a password cannot be put into a URL. Says nothing of either.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// The URL is neither of the two forms.
    Form,
    /// The URL holds a password already.
    Twice,
    /// The URL names no user for the password.
    NoUser,
}

/// Whether `url` has one of the two forms that PostgreSQL clients take.
pub(super) fn is_url(url: &str) -> bool {
    authority(url).is_some() || (!url.contains("://") && url.contains('='))
}

/// Puts `password` into `url`, in the form that `url` has.
pub(super) fn with_password(url: &str, password: &str) -> Result<String, Refused> {
    let Some((scheme, authority, rest)) = authority(url) else {
        if !is_url(url) {
            return Err(Refused::Form);
        }
        if url.split_whitespace().any(|pair| pair.starts_with("password=")) {
            return Err(Refused::Twice);
        }
        let quoted = password.replace('\\', r"\\").replace('\'', r"\'");
        return Ok(format!("{url} password='{quoted}'"));
    };
    let (user, host) = authority.rsplit_once('@').ok_or(Refused::NoUser)?;
    if user.is_empty() {
        return Err(Refused::NoUser);
    }
    if user.contains(':') || rest.contains("password=") {
        return Err(Refused::Twice);
    }
    Ok(format!("{scheme}://{user}:{}@{host}{rest}", percent(password)))
}

/// Scheme, `user@host:port` and what follows, of the URL form.
fn authority(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "postgresql" | "postgres") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Some((scheme, authority, rest))
}

/// Every byte that a URL could take for something else, as `%XX`.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod password {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn goes_between_user_and_host() {
        let put = |url| with_password(url, "p@ss/w:d%");
        assert_eq!(
            put("postgresql://u@h:5432/db?sslmode=require").unwrap(),
            "postgresql://u:p%40ss%2Fw%3Ad%25@h:5432/db?sslmode=require"
        );
        assert_eq!(put("host=h user=u").unwrap(), "host=h user=u password='p@ss/w:d%'");
    }

    #[test]
    fn is_refused_where_there_is_one_or_no_place_for_it() {
        let put = |url| with_password(url, "x").unwrap_err();
        assert_eq!(put("postgresql://u:p@h/db"), Refused::Twice);
        assert_eq!(put("host=h password=p"), Refused::Twice);
        assert_eq!(put("postgresql://h/db"), Refused::NoUser);
        assert_eq!(put("mysql://u@h/db"), Refused::Form);
        assert_eq!(put("db"), Refused::Form);
    }

    proptest! {
        #[test]
        fn comes_back_out_of_either_form(password in "\\PC{1,30}") {
            for url in ["postgresql://u@h/db", "host=h user=u"] {
                let full = with_password(url, &password).unwrap();
                let read: tokio_postgres::Config = full.parse().unwrap();
                prop_assert_eq!(read.get_password(), Some(password.as_bytes()));
            }
        }
    }
}
