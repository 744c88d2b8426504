//! Warns of environment variables that look like settings but are not. A misspelled one would otherwise be ignored
//! silently.

use super::table::settings;
use crate::sorted::sorted;
use std::ffi::OsString;

const PREFIX: &str = "PROXYRUNNER_";

/// Returns a warning for each unknown variable with the prefix.
pub(super) fn warnings(variables: &[(OsString, OsString)]) -> Vec<String> {
    let known: Vec<_> = settings().map(super::table::Setting::variable).collect();
    sorted(variables.iter().filter_map(|(name, value)| unknown(name, value, &known)).collect())
}

fn unknown(name: &OsString, value: &OsString, known: &[String]) -> Option<String> {
    let name = name.to_string_lossy();
    let upper = name.to_ascii_uppercase();
    let rest = upper.strip_prefix(PREFIX)?;
    if known.iter().any(|known| *known == name) || is_service_link(rest, &value.to_string_lossy()) {
        return None;
    }
    let near = known.iter().map(|known| (distance(&upper, known), known)).min();
    // One typing error is accepted in a short name, two in a longer one.
    let near = near.filter(|(slips, _)| *slips <= 1 + rest.len() / 8);
    let hint = near.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default();
    Some(format!("{} is not a setting and is ignored{hint}", name.escape_debug()))
}

/// Returns whether Kubernetes sets the variable in every pod for a Service whose name begins with `proxyrunner`.
fn is_service_link(rest: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = |part: &str| part.starts_with(|c: char| c.is_ascii_digit()) && part.contains("_");
    let rest = format!("_{rest}");
    rest.contains("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest.ends_with("_PORT") && is_address
        || rest.split("_PORT_").skip(1).any(of_port)
}

/// Returns the number of letters to change, add, remove or swap between two names (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, &a) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, &b) in other.iter().enumerate() {
            let mut least = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a == other[j - 1] && one[i - 1] == b {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(name: &str, value: &str) -> Vec<String> {
        warnings(&[(name.into(), value.into()), ("PATH".into(), "/bin".into())])
    }

    #[test]
    fn misspelled_settings_are_reported_with_a_similar_name() {
        for (name, hint) in [
            ("PROXYRUNNER_LISTN", "; did you mean PROXYRUNNER_LISTEN?"),
            ("PROXYRUNNER_LSITEN", "; did you mean PROXYRUNNER_LISTEN?"),
            ("PROXYRUNNER_MAXBODY", "; did you mean PROXYRUNNER_MAX_BODY?"),
            ("proxyrunner_listen", "; did you mean PROXYRUNNER_LISTEN?"),
            ("PROXYRUNNER_SESSION_IDEL", "; did you mean PROXYRUNNER_SESSION_IDLE?"),
            ("PROXYRUNNER_SOMETHING_ELSE", ""),
            ("PROXYRUNNER_", ""),
            ("PROXYRUNNER_ALLOW_PORT", "; did you mean PROXYRUNNER_ALLOW_HOST?"),
        ] {
            assert_eq!(warned(name, "hunter2"), [format!("{name} is not a setting and is ignored{hint}")]);
        }
    }

    #[test]
    fn settings_and_variables_of_kubernetes_cause_no_warning() {
        for setting in settings() {
            assert_eq!(warned(&setting.variable(), "x"), [""; 0]);
        }
        for (name, value) in [
            ("PROXYRUNNER_PORT", "tcp://10.0.0.1:8080"),
            ("PROXYRUNNER_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("PROXYRUNNER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("PROXYRUNNER_SERVICE_HOST", "10.0.0.1"),
            ("PROXYRUNNER_SERVICE_PORT_HTTP", "8080"),
            ("PROXYRUNNER_DEMO_SERVICE_HOST", "10.0.0.1"),
            ("PROXYRUNNER_DEMO_PORT_80_TCP_PROTO", "tcp"),
            ("PROXYRUNNERX", "x"),
        ] {
            assert_eq!(warned(name, value), [""; 0], "{name}");
        }
    }
}
