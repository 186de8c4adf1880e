//! The query of a request.

/// Names and values, in order, with `%XX` and `+` undone.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what is behind the question mark.
    pub fn of(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let parted = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(parted.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    /// The first value of a name, None when it is not given or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a name, in order.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a name is given at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A switch: what Go reads as true.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let mut ahead = rest.clone();
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high << 4 | low).unwrap_or_default());
                rest = ahead;
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_browsers_write_it() {
        let query = Query::of(Some("a=1&b=x%20y+z%2&follow=true&empty=&c%3D=d&verbose"));
        assert_eq!((query.get("a"), query.get("b"), query.get("c=")), (Some("1"), Some("x y z%2"), Some("d")));
        assert!(query.is_set("follow") && query.is_set("a") && !query.is_set("b"));
        assert!(query.has("empty") && query.get("empty").is_none() && query.has("verbose") && !query.has("none"));
        assert!(!Query::of(None).has(""));
    }
}
