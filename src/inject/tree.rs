//! A manifest as a tree that keeps the order of keys, and the difference between a string and anything else.

/// A value of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string, number, boolean or null.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Value>),
    /// A mapping.
    Map(Map),
}

/// A scalar, with its text as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text, without quotes.
    pub text: String,
    /// Whether the text must stay without quotes: some version of YAML reads it as a number, a boolean or null.
    pub is_bare: bool,
}

/// A mapping, in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The entries. No two keys have the same text.
    pub entries: Vec<(Scalar, Value)>,
}

/// The names that some version of YAML reads as null.
const NULLS: [&str; 5] = ["", "~", "null", "Null", "NULL"];
/// The names, in lower case, that some version of YAML reads as something else than a string.
const NAMES: [&str; 13] = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", "="];

impl Scalar {
    /// Creates a string.
    pub fn text(text: impl Into<String>) -> Scalar {
        Scalar { text: text.into(), is_bare: false }
    }

    /// Creates the scalar that a text without quotes stands for.
    pub fn without_quotes(text: &str) -> Scalar {
        let text = if text.is_empty() { "null" } else { text };
        Scalar { text: text.to_owned(), is_bare: is_ambiguous(text) }
    }

    /// Returns whether this is null.
    pub fn is_null(&self) -> bool {
        self.is_bare && NULLS.contains(&&*self.text)
    }
}

/// Returns whether some version of YAML reads a text without quotes as something else than a string.
pub fn is_ambiguous(text: &str) -> bool {
    if NAMES.contains(&&*text.to_ascii_lowercase()) {
        return true;
    }
    let mut chars = text.chars();
    let begins_like_a_number = match chars.next() {
        Some('0'..='9') => true,
        Some('+' | '-' | '.') => {
            chars.next().is_some_and(|next| matches!(next, '0'..='9' | '.' | 'i' | 'I' | 'n' | 'N'))
        }
        _ => false,
    };
    // Numbers and timestamps consist of nothing else, and what they consist of can be written as it was.
    begins_like_a_number
        && !text.starts_with("...")
        && !text.ends_with(' ')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._: ".contains(&byte))
        && !text.contains(": ")
        && !text.ends_with(':')
}

impl Value {
    /// Creates a string.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Scalar(Scalar::text(text))
    }

    /// Creates a number or a boolean.
    pub fn bare(value: impl ToString) -> Value {
        Value::Scalar(Scalar { text: value.to_string(), is_bare: true })
    }

    /// Creates a map.
    pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
        Value::Map(Map::of(entries))
    }

    /// Returns the text of a scalar that is not null.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Scalar(scalar) if !scalar.is_null() => Some(&scalar.text),
            _ => None,
        }
    }

    /// Returns whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Scalar(scalar) if scalar.is_null())
    }
}

impl Map {
    /// Creates a map.
    pub fn of<const N: usize>(entries: [(&str, Value); N]) -> Map {
        Map { entries: entries.into_iter().map(|(key, value)| (Scalar::text(key), value)).collect() }
    }

    /// Returns the value of a key, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.entries.iter().find(|(own, _)| own.text == key);
        found.map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// Returns the text of a scalar.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// Returns the map of a key, if it is one.
    pub fn map(&self, key: &str) -> Option<&Map> {
        match self.get(key)? {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// Returns the list of a key, if it is one.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.get(key)? {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// Sets a key, where it is or else at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(own, _)| own.text == key) {
            Some((_, own)) => *own = value,
            None => self.entries.push((Scalar::text(key), value)),
        }
    }

    /// Sets a key that is absent or null.
    pub fn set_missing(&mut self, key: &str, value: Value) {
        if self.get(key).is_none() {
            self.set(key, value);
        }
    }

    /// Removes a key, and returns its value unless it was null.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.iter().position(|(own, _)| own.text == key)?;
        Some(self.entries.remove(at).1).filter(|value| !value.is_null())
    }

    /// Returns the map of a key, which is created if it is absent or null; `None` if it is something else.
    pub fn map_mut(&mut self, key: &str) -> Option<&mut Map> {
        self.set_missing(key, Value::Map(Map::default()));
        match self.entries.iter_mut().find(|(own, _)| own.text == key) {
            Some((_, Value::Map(map))) => Some(map),
            _ => None,
        }
    }

    /// Returns the list of a key, which is created if it is absent or null; `None` if it is something else.
    pub fn list_mut(&mut self, key: &str) -> Option<&mut Vec<Value>> {
        self.set_missing(key, Value::List(Vec::new()));
        match self.entries.iter_mut().find(|(own, _)| own.text == key) {
            Some((_, Value::List(items))) => Some(items),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_some_version_of_yaml_reads_as_no_string_are_ambiguous() {
        for text in [
            "", "~", "no", "Yes", "OFF", "y", "null", "007", "1e3", "0x1F", "-1", "+.5", ".inf", "-.INF",
            ".NaN",
        ] {
            assert!(is_ambiguous(text), "{text:?}");
        }
        for text in ["1_000", "12:30:45", "2001-12-14 21:59:43.10 -5", "<<", "1.2.3"] {
            assert!(is_ambiguous(text), "{text:?}");
        }
        for text in ["a", "none", "-", "--listen", ".", "...", "1: 2", "1é", "1 #2", "yes sir", "+x"] {
            assert!(!is_ambiguous(text), "{text:?}");
        }
    }

    #[test]
    fn null_counts_as_absent_and_keeps_its_place() {
        let null = Value::Scalar(Scalar::without_quotes(""));
        let mut map = Map::of([("a", null), ("b", Value::text("~"))]);
        assert_eq!((map.get("a"), map.text("b")), (None, Some("~")));
        map.set_missing("a", Value::bare(1));
        map.set_missing("b", Value::bare(2));
        map.list_mut("c").expect("a list").push(Value::bare(true));
        assert!(map.map_mut("c").is_none());
        let keys: Vec<_> = map.entries.iter().map(|(key, _)| &*key.text).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!((map.text("a"), map.text("b")), (Some("1"), Some("~")));
        assert_eq!(map.take("a"), Some(Value::bare(1)));
    }
}
