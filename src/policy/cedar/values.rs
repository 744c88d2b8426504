//! Converts JSON to Cedar's values as ToolHive does, number by number.

use crate::jsonrpc::{members, unescaped};
use cedar_policy::RestrictedExpression;
use serde_json::Value;
use std::collections::HashMap;

/// Maximum number of arrays and objects around a value; deeper ones are left out.
const DEEPEST: usize = 10;
/// The parts of one in Cedar's decimals.
const PARTS: f64 = 10_000.0;

/// A named attribute.
pub(super) type Pair = (String, RestrictedExpression);

/// Converts a value; `None` if it is left out: null, a number out of range, or too deep.
pub(super) fn value(value: &Value) -> Option<RestrictedExpression> {
    converted(value, 0)
}

fn converted(value: &Value, depth: usize) -> Option<RestrictedExpression> {
    if depth > DEEPEST {
        return None;
    }
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => RestrictedExpression::new_bool(*value),
        Value::String(text) => RestrictedExpression::new_string(text.clone()),
        Value::Number(number) => decimal(number.as_f64()?)?,
        Value::Array(items) => set(items.iter().filter_map(|item| converted(item, depth + 1))),
        Value::Object(map) => {
            let pairs =
                map.iter().filter_map(|(key, value)| Some((key.clone(), converted(value, depth + 1)?)));
            // Keys of a map are unique.
            RestrictedExpression::new_record(pairs).ok()?
        }
    })
}

/// Returns a set.
pub(super) fn set(items: impl Iterator<Item = RestrictedExpression>) -> RestrictedExpression {
    RestrictedExpression::new_set(items)
}

/// Converts a number to a decimal. Its digits after the fourth are cut, in floating point as ToolHive does; `None` if
/// it is out of range.
fn decimal(number: f64) -> Option<RestrictedExpression> {
    let parts = number * PARTS;
    // The largest i64 is no f64; the next one above it is.
    if !(-(2_f64.powi(63))..2_f64.powi(63)).contains(&parts) {
        return None;
    }
    let parts = parts as i64;
    let sign = if parts < 0 { "-" } else { "" };
    let whole = parts.unsigned_abs();
    Some(RestrictedExpression::new_decimal(format!("{sign}{}.{:04}", whole / 10_000, whole % 10_000)))
}

/// Converts the arguments that `wanted` asks for by the names of their attributes, such as `arg_path`. Of arrays,
/// objects and nulls only the presence is an attribute.
///
/// # Errors
/// When more than `most` arguments are wanted, or one of them is a number out of range: without its attribute, policies
/// would decide as if it was not given.
pub(super) fn arguments(
    arguments: &[u8],
    most: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Pair>, Undecidable> {
    let mut pairs = HashMap::new();
    let mut name = String::new();
    for (key, span) in members(arguments, 0..arguments.len()) {
        let raw = &arguments[span];
        let is_scalar = !matches!(raw.first(), Some(b'{' | b'[' | b'n'));
        name.clear();
        name.push_str("arg_");
        name.push_str(&String::from_utf8_lossy(&unescaped(&arguments[key])));
        if !is_scalar {
            name.push_str("_present");
        }
        if !wanted(&name) {
            continue;
        }
        let value = if is_scalar { scalar(raw) } else { Some(RestrictedExpression::new_bool(true)) };
        pairs.insert(name.clone(), value.ok_or(Undecidable::OutOfRange)?);
        if pairs.len() > most {
            return Err(Undecidable::TooMany);
        }
    }
    Ok(pairs.into_iter().collect())
}

/// The reason why arguments cannot be decided on.
#[derive(Debug)]
pub(super) enum Undecidable {
    /// There are too many.
    TooMany,
    /// A number is out of range.
    OutOfRange,
}

/// Converts a string, boolean or number; `None` if it is out of range.
fn scalar(raw: &[u8]) -> Option<RestrictedExpression> {
    match raw.first()? {
        b'"' => {
            let text = String::from_utf8_lossy(&unescaped(raw)).into_owned();
            Some(RestrictedExpression::new_string(text))
        }
        b't' => Some(RestrictedExpression::new_bool(true)),
        b'f' => Some(RestrictedExpression::new_bool(false)),
        _ => decimal(std::str::from_utf8(raw).ok()?.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(value: Option<RestrictedExpression>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| format!("{}", value.as_ref()))
    }

    #[test]
    fn values_are_converted_by_their_kinds() {
        for (given, expected) in [
            (json!("a\"b"), r#""a\"b""#),
            (json!(true), "true"),
            (json!(1), r#"decimal("1.0000")"#),
            (json!(-7.25), r#"decimal("-7.2500")"#),
            (json!(0.00019), r#"decimal("0.0001")"#),
            (json!(-0.00001), r#"decimal("0.0000")"#),
            (json!(-0.0001), r#"decimal("-0.0001")"#),
            // In floating point, as in ToolHive.
            (json!(922_337_203_685_477_i64), r#"decimal("922337203685476.9664")"#),
            (json!(922_337_203_685_478_i64), "-"),
            (json!(-922_337_203_685_478_i64), "-"),
            (json!(1e300), "-"),
            (json!(null), "-"),
            (json!(["a", null, 1]), r#"["a", decimal("1.0000")]"#),
            (json!({"a": {"b": null, "c": []}}), "{a: {c: []}}"),
        ] {
            assert_eq!(shown(value(&given)).replace(": ", ":"), expected.replace(": ", ":"), "{given}");
        }
    }

    #[test]
    fn deep_values_are_left_out() {
        let nested = |levels: usize| (0..levels).fold(json!("x"), |inner, _| json!([inner]));
        assert!(shown(value(&nested(10))).contains('x'));
        assert!(!shown(value(&nested(11))).contains('x'));
    }

    #[test]
    fn arguments_are_scalars_or_their_presence() {
        let given = br#"{"a":"x","b":true,"c":2,"d":[1],"e":{"f":1},"g":null,"\u0069":1}"#;
        let mut pairs = arguments(given, 100, |_| true).unwrap();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        let names: Vec<_> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["arg_a", "arg_b", "arg_c", "arg_d_present", "arg_e_present", "arg_g_present", "arg_i"]
        );
        assert_eq!(arguments(given, 100, |name| name == "arg_c").unwrap().len(), 1);
        assert!(arguments(given, 3, |_| true).is_err());
    }

    #[test]
    fn a_number_out_of_range_is_no_argument_to_decide_on() {
        for number in ["1e400", "1e18", "-1e18", "922337203685478"] {
            let given = format!(r#"{{"a":{number},"b":1}}"#);
            assert!(arguments(given.as_bytes(), 100, |name| name == "arg_a").is_err(), "{number}");
            assert_eq!(arguments(given.as_bytes(), 100, |name| name == "arg_b").unwrap().len(), 1);
        }
    }
}
