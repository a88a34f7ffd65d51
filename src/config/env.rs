//! `${NAME}` and `${NAME:-default}` in values.

/// Looks up one environment variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a value could not be completed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unset {
    pub(super) found: String,
    pub(super) allowed: String,
}

/// Replaces `${NAME}` by the environment variable, `${NAME:-default}` by the default if the variable is unset
/// or empty, and `$${` by a literal `${`. A `$` that no brace follows stays as it is. What is put in is not
/// looked at again.
pub(super) fn substitute(text: &str, lookup: Lookup<'_>) -> Result<String, Unset> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start]); // One of the two `$` is the escape.
            out.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let end = inside.find('}').ok_or_else(|| malformed("`${` without `}`"))?;
        out.push_str(&value(&inside[..end], lookup)?);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inside: &str, lookup: Lookup<'_>) -> Result<String, Unset> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name =
        name.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()));
    if name.is_empty() || !is_name || name.len() > NAME_BYTES_MAX {
        return Err(malformed("`${` without a variable's name"));
    }
    match (lookup(name), default) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(_)) if !found.is_empty() => Ok(found),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unset {
            found: format!("${{{name}}}, which is not set in the environment"),
            allowed: format!("a variable that is set, or ${{{name}:-a default}}"),
        }),
    }
}

fn malformed(found: &str) -> Unset {
    Unset { found: found.into(), allowed: "${NAME} or ${NAME:-default}, or $${ for the two characters".into() }
}

/// Longest name of a variable.
const NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod substitution {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.internal".into()),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("${HOST}".into()),
            _ => None,
        }
    }

    fn put(text: &str) -> Result<String, Unset> {
        substitute(text, &environment)
    }

    #[test]
    fn puts_variables_and_defaults_in() {
        assert_eq!(put("a ${HOST}:${PORT:-5432} b").unwrap(), "a db.internal:5432 b");
        assert_eq!(put("${EMPTY}|${EMPTY:-x}|${NONE:-}").unwrap(), "|x|");
    }

    #[test]
    fn leaves_lone_dollars_and_escapes_alone() {
        assert_eq!(put("pa$$word $HOST $").unwrap(), "pa$$word $HOST $");
        assert_eq!(put("$${HOST}").unwrap(), "${HOST}");
    }

    #[test]
    fn does_not_look_again_at_what_it_put_in() {
        assert_eq!(put("${ODD}").unwrap(), "${HOST}");
    }

    #[test]
    fn names_the_variable_that_is_missing() {
        let unset = put("${NONE}").unwrap_err();
        assert_eq!(unset.found, "${NONE}, which is not set in the environment");
        assert_eq!(unset.allowed, "a variable that is set, or ${NONE:-a default}");
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        for text in ["${", "${}", "${1A}", "${A B}", "${:-x}", "x${A"] {
            assert!(put(text).is_err(), "{text}");
        }
    }
}
