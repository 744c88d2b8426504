//! Reads the fields of a map strictly: each unknown field and each wrong type is noted by its path.

use super::super::tree::{Map, Value};

/// The problems of one document.
#[derive(Default)]
pub(super) struct Problems {
    pub lines: Vec<String>,
}

/// A map, its path and the keys that may occur in it.
pub(super) struct Fields<'a> {
    map: &'a Map,
    path: String,
}

impl Problems {
    /// Notes a problem of a field: `: spec.env reason`.
    pub fn note(&mut self, path: &str, reason: &str) {
        self.lines.push(format!(": {} {reason}", path.escape_debug()));
    }
}

impl<'a> Fields<'a> {
    /// Creates a reader, and notes the keys that are not known.
    pub fn new(map: &'a Map, path: impl Into<String>, known: &[&str], problems: &mut Problems) -> Fields<'a> {
        let fields = Fields { map, path: path.into() };
        for (key, value) in &map.entries {
            if !known.contains(&&*key.text) && !value.is_null() {
                problems.note(&fields.at(&key.text), "is not a field that inject knows; remove it");
            }
        }
        fields
    }

    /// Returns the path of a key.
    pub fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Returns a scalar.
    pub fn text(&self, key: &str, problems: &mut Problems) -> Option<&'a str> {
        let value = self.map.get(key)?;
        let text = value.as_text();
        if text.is_none() {
            problems.note(&self.at(key), "is not a single value; correct it");
        }
        text
    }

    /// Returns a scalar that must be there.
    pub fn required(&self, key: &str, problems: &mut Problems) -> &'a str {
        match self.map.get(key) {
            None => problems.note(&self.at(key), "is missing; add it"),
            Some(value) if value.as_text() == Some("") => {
                problems.note(&self.at(key), "is empty; complete it")
            }
            Some(_) => {}
        }
        self.text(key, problems).unwrap_or_default()
    }

    /// Returns one of a few values.
    pub fn choice(&self, key: &str, values: &[&str], problems: &mut Problems) -> Option<&'a str> {
        let text = self.text(key, problems)?;
        if !values.contains(&text) {
            problems.note(&self.at(key), &format!("is {text:?}; give {}", values.join(" or ")));
        }
        Some(text)
    }

    /// Returns a number.
    pub fn number(&self, key: &str, least: u32, most: u32, problems: &mut Problems) -> Option<u32> {
        let text = self.text(key, problems)?;
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            problems.note(&self.at(key), &format!("is {text:?}; give a number from {least} to {most}"));
        }
        number
    }

    /// Returns a map, which is empty if the key is absent.
    pub fn map(&self, key: &str, known: &[&str], problems: &mut Problems) -> Option<Fields<'a>> {
        match self.map.get(key)? {
            Value::Map(map) => Some(Fields::new(map, self.at(key), known, problems)),
            _ => {
                problems.note(&self.at(key), "is not a map; correct it");
                None
            }
        }
    }

    /// Returns the items of a list.
    pub fn list(&self, key: &str, problems: &mut Problems) -> &'a [Value] {
        match self.map.get(key) {
            None => &[],
            Some(Value::List(items)) => items,
            Some(_) => {
                problems.note(&self.at(key), "is not a list; correct it");
                &[]
            }
        }
    }

    /// Returns the items of a list of maps.
    pub fn maps(&self, key: &str, known: &[&str], problems: &mut Problems) -> Vec<Fields<'a>> {
        let mut found = Vec::new();
        for (at, item) in self.list(key, problems).iter().enumerate() {
            let path = format!("{}[{at}]", self.at(key));
            match item {
                Value::Map(map) => found.push(Fields::new(map, path, known, problems)),
                _ => problems.note(&path, "is not a map; correct it"),
            }
        }
        found
    }

    /// Returns a map of texts as it is.
    pub fn texts(&self, key: &str, problems: &mut Problems) -> Map {
        match self.map.get(key) {
            None => Map::default(),
            Some(Value::Map(map)) if map.entries.iter().all(|(_, value)| value.as_text().is_some()) => {
                map.clone()
            }
            Some(_) => {
                problems.note(&self.at(key), "is not a map of single values; correct it");
                Map::default()
            }
        }
    }
}
