//! The groups of a principal, by its claims.

use serde_json::{Map, Value};

/// The claims in which groups are looked for, if the configured one is absent.
const USUAL: [&str; 3] = ["groups", "roles", "cognito:groups"];

/// Returns the groups and roles, without duplicates. An absent claim is not an empty one: an empty one says that
/// there are no groups.
pub(super) fn of<'a>(
    claims: &'a Map<String, Value>,
    group_claim: Option<&str>,
    role_claim: Option<&str>,
) -> Vec<&'a str> {
    let configured = group_claim.and_then(|name| listed(claims, name));
    let groups = configured.or_else(|| USUAL.iter().find_map(|name| listed(claims, name)));
    let roles = role_claim.and_then(|name| listed(claims, name));
    let mut all = Vec::new();
    for name in groups.into_iter().chain(roles).flatten().filter_map(Value::as_str) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// Returns a claim that is a list. Its name is that of a claim, else a path into claims.
fn listed<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Vec<Value>> {
    let found = match claims.get(name) {
        Some(found) => found,
        None => {
            let (first, rest) = name.split_once('.')?;
            rest.split('.').try_fold(claims.get(first)?, |value, part| value.as_object()?.get(part))?
        }
    };
    found.as_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn groups(claims: Value, group: &str, role: &str) -> String {
        let named = |name: &'static str| Some(name).filter(|name| !name.is_empty());
        let (group, role): (&'static str, &'static str) = (group.to_owned().leak(), role.to_owned().leak());
        of(claims.as_object().expect("claims"), named(group), named(role)).join(",")
    }

    #[test]
    fn the_first_claim_that_is_present_counts() {
        for (claims, group, role, expected) in [
            (json!({"groups": ["a"], "roles": ["b"]}), "", "", "a"),
            (json!({"roles": ["b"], "cognito:groups": ["c"]}), "", "", "b"),
            (json!({"cognito:groups": ["c"]}), "", "", "c"),
            (json!({"groups": [], "roles": ["b"]}), "", "", ""),
            (json!({"groups": "a", "roles": ["b"]}), "", "", "b"),
            (json!({"groups": ["a"], "mine": ["m"]}), "mine", "", "m"),
            (json!({"groups": ["a"]}), "mine", "", "a"),
            (json!({"groups": ["a"], "mine": []}), "mine", "", ""),
            (json!({"groups": ["a", 1, null, "a"], "r": ["a", "x"]}), "", "r", "a,x"),
            (json!({"realm_access": {"roles": ["k"]}}), "realm_access.roles", "", "k"),
            (
                json!({"https://x.example/g": ["u"], "https://x": {"example/g": ["v"]}}),
                "https://x.example/g",
                "",
                "u",
            ),
            (json!({"a": ["x"]}), "a.b", "", ""),
        ] {
            assert_eq!(groups(claims.clone(), group, role), expected, "{claims}");
        }
    }
}
