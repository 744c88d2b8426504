//! Redacts secrets in texts: in URLs, connection strings, command lines and headers.

use std::borrow::Cow;

/// The replacement for a secret.
pub(super) const REDACTED: &str = "<redacted>";
/// Prefixes of words that are secrets, and the minimum length of such a word.
const TOKENS: ([&str; 13], usize) = (
    [
        "eyJ",
        "sk-",
        "ghp_",
        "gho_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "xox",
        "npm_",
        "hf_",
        "AKIA",
        "ASIA",
        "AIza",
    ],
    16,
);
/// Authentication schemes that precede a secret.
const SCHEMES: [&str; 2] = ["bearer", "basic"];
/// Characters besides letters and digits that may be part of a key.
const KEY: [char; 3] = ['_', '-', '.'];

/// Redacts the secrets in a text; `is_secret` returns whether the values of a key are secrets.
pub(super) fn redacted<'a>(text: &'a str, is_secret: &impl Fn(&str) -> bool) -> Cow<'a, str> {
    let mut redaction = Redaction { is_secret, out: String::with_capacity(text.len()), hide: Hide::Nothing };
    let mut follows_key = false;
    for piece in text.split_inclusive(is_break) {
        let end = piece.chars().next_back().filter(|&c| is_break(c));
        let word = &piece[..piece.len() - end.map_or(0, char::len_utf8)];
        follows_key = redaction.piece(word, end, follows_key);
    }
    if redaction.out == text { text.into() } else { redaction.out.into() }
}

fn is_break(c: char) -> bool {
    c.is_whitespace() || is_quote(c) || matches!(c, '<' | '>')
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

/// The extent of the redaction of the following text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hide {
    Nothing,
    /// The next word or quotation.
    Word,
    /// The rest of the line or quotation, or the whole quotation that follows.
    Line,
    Until(char),
    Rest,
}

struct Redaction<'a, F> {
    is_secret: &'a F,
    out: String,
    hide: Hide,
}

impl<F: Fn(&str) -> bool> Redaction<'_, F> {
    /// Processes a word and its delimiter. Returns whether the word is a key whose value may follow.
    fn piece(&mut self, word: &str, end: Option<char>, follows_key: bool) -> bool {
        let quote = end.filter(|&c| is_quote(c));
        let mut is_key = false;
        self.hide = match (self.hide, quote) {
            (Hide::Word | Hide::Line, Some(quote)) if word.is_empty() => {
                self.out.push(quote);
                self.out.push_str(REDACTED);
                Hide::Until(quote)
            }
            (Hide::Word, _) if word.is_empty() => return self.ends(end),
            (Hide::Line, _) if word.is_empty() && end != Some('\n') => return self.ends(end),
            (Hide::Word | Hide::Line, _) if is_nested(word) => {
                self.out.push_str(REDACTED);
                Hide::Rest
            }
            (Hide::Word, _) => {
                self.out.push_str(REDACTED);
                self.ends(end);
                Hide::Nothing
            }
            (Hide::Line, _) => {
                self.out.push_str(REDACTED);
                self.until(quote.is_some() || end == Some('\n'), end, Hide::Until('\n'))
            }
            // A header ends with its line or quotation.
            (Hide::Until('\n'), _) => {
                self.until(quote.is_some() || end == Some('\n'), end, Hide::Until('\n'))
            }
            (Hide::Until(until), _) => self.until(end == Some(until), end, Hide::Until(until)),
            (Hide::Rest, _) => Hide::Rest,
            (Hide::Nothing, _) => {
                let (key, hide) = self.word(word, follows_key);
                is_key = key;
                self.ends(end);
                match quote.filter(|_| hide != Hide::Nothing && word.ends_with(['=', ':'])) {
                    Some(quote) => {
                        self.out.push_str(REDACTED);
                        Hide::Until(quote)
                    }
                    None => hide,
                }
            }
        };
        is_key
    }

    fn ends(&mut self, end: Option<char>) -> bool {
        self.out.extend(end);
        false
    }

    fn until(&mut self, is_over: bool, end: Option<char>, hide: Hide) -> Hide {
        if !is_over {
            return hide;
        }
        self.ends(end);
        Hide::Nothing
    }

    /// Writes a word. Returns whether it is a key, and the extent of the redaction that follows.
    fn word(&mut self, word: &str, follows_key: bool) -> (bool, Hide) {
        if follows_key && word.starts_with([':', '=']) {
            self.out.push_str(&word[..1]);
            if word.len() == 1 {
                return (false, if word == "=" { Hide::Word } else { Hide::Line });
            }
            self.out.push_str(REDACTED);
            return (false, if is_nested(&word[1..]) { Hide::Rest } else { Hide::Nothing });
        }
        let (beginnings, least) = TOKENS;
        if word.len() >= least && beginnings.iter().any(|beginning| word.starts_with(beginning)) {
            self.out.push_str(REDACTED);
            return (false, Hide::Nothing);
        }
        if word.starts_with("-----BEGIN") {
            self.out.push_str(REDACTED);
            return (false, Hide::Rest);
        }
        let shown = without_user_information(word);
        let hide = self.pairs(&shown);
        if SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme)) {
            return (false, Hide::Word);
        }
        let is_plain = !word.contains(['=', ':']) && (self.is_secret)(word);
        match hide {
            Hide::Nothing if is_plain && word.starts_with('-') => (false, Hide::Word),
            hide => (is_plain, hide),
        }
    }

    /// Writes a word that may consist of `key=value` or `key:value` pairs.
    fn pairs(&mut self, word: &str) -> Hide {
        let mut hide = Hide::Nothing;
        for pair in word.split_inclusive(['&', ';', '?', '#']) {
            let at =
                pair.find('=').or_else(|| pair.find(':')).filter(|&at| (self.is_secret)(key(&pair[..at])));
            let Some(at) = at else {
                self.out.push_str(pair);
                hide = Hide::Nothing;
                continue;
            };
            let value = pair[at + 1..].trim_end_matches(['&', ';', '?', '#']);
            self.out.push_str(&pair[..=at]);
            if value.is_empty() {
                hide = if pair[at..].starts_with('=') { Hide::Word } else { Hide::Line };
            } else if is_nested(value) {
                self.out.push_str(REDACTED);
                return Hide::Rest;
            } else {
                self.out.push_str(REDACTED);
                hide = Hide::Nothing;
            }
            self.out.push_str(&pair[at + 1 + value.len()..]);
        }
        hide
    }
}

/// Returns whether a value is a list or an object, whose end cannot be found reliably.
fn is_nested(value: &str) -> bool {
    value.starts_with(['[', '{'])
}

/// Returns the key that ends the text before a `=`.
fn key(text: &str) -> &str {
    text.rsplit(|c: char| !c.is_alphanumeric() && !KEY.contains(&c)).next().unwrap_or_default()
}

/// Redacts user information in URLs (RFC 3986, section 3.2.1), which may contain unescaped delimiters.
fn without_user_information(word: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        rest = after;
        if let Some(at) = end_of_user_information(after) {
            shown.push_str(REDACTED);
            rest = &after[at..];
        }
    }
    if shown.is_empty() { word.into() } else { (shown + rest).into() }
}

fn end_of_user_information(after: &str) -> Option<usize> {
    // The next URL has its own user information.
    let after = after.split_once("://").map_or(after, |(this, _)| this);
    let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
    let has_password = authority
        .split_once(':')
        .is_some_and(|(_, port)| port.contains(|c: char| !c.is_ascii_digit() && c != ',' && c != ']'));
    authority.rfind('@').or_else(|| after.rfind('@').filter(|_| has_password && !authority.starts_with('[')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let is_secret = |key: &str| {
            ["password", "pwd", "token", "key", "authorization"]
                .iter()
                .any(|s| key.to_lowercase().contains(s))
        };
        redacted(text, &is_secret).replace(REDACTED, "*")
    }

    #[test]
    fn addresses_have_no_user_information() {
        for (text, expected) in [
            ("postgres://app:hunter2@db:5432/x", "postgres://*@db:5432/x"),
            ("see https://token@h/p and ftp://u:p@h.", "see https://*@h/p and ftp://*@h."),
            ("redis://:p@ss@h", "redis://*@h"),
            ("amqp://u:p/w#x@h/v", "amqp://*@h/v"),
            ("mongodb://u:p@a:1,b:2/x", "mongodb://*@a:1,b:2/x"),
            ("jdbc:mysql://h/d?user=u&password=p&x=1", "jdbc:mysql://h/d?user=u&password=*&x=1"),
            ("https://h/p?sig=1&access_token=a%20b#f", "https://h/p?sig=1&access_token=*#f"),
            ("(https://u:p@h)", "(https://*@h)"),
            ("a=https://u:p@h", "a=https://*@h"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn values_of_secret_keys_are_hidden() {
        for (text, expected) in [
            ("host=db password=hunter2 dbname=x", "host=db password=* dbname=x"),
            ("Server=h;Pwd=p;Database=d", "Server=h;Pwd=*;Database=d"),
            ("password='a b' x", "password='*' x"),
            ("password = a b", "password = * b"),
            ("mysql --password hunter2 -h db", "mysql --password * -h db"),
            ("mysql --password=hunter2", "mysql --password=*"),
            ("curl -H \"Authorization: Bearer a b\" h", "curl -H \"Authorization: *\" h"),
            ("Authorization: Basic a\nHost: h", "Authorization: *\nHost: h"),
            ("got {\"password\": \"a b\", \"n\": 1}", "got {\"password\": \"*\", \"n\": 1}"),
            ("got {\"token\": [\"a\", \"b\"], \"n\": 1}", "got {\"token\": *"),
            ("got {\"token\":[\"a\"]}", "got {\"token\":*\""),
            ("got {\"token\": {\"a\": \"b\"}}", "got {\"token\": *"),
            ("tokens=[a, b]", "tokens=* "),
            ("tokens: [a, b]", "tokens: *"),
            ("use Bearer abc now", "use Bearer * now"),
            ("it is ghp_0123456789abcdef.", "it is *"),
            ("-----BEGIN KEY-----\nabc\n", "* "),
            ("API_KEY=\n", "API_KEY=\n"),
            ("API_KEY=", "API_KEY="),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_stay_unchanged() {
        for text in [
            "",
            "https://www.npmjs.com/package/@scope/name",
            "http://[::1]:8080/@x",
            "https://h:8443/a@b?c=d@e",
            "mail u@example.com: the key figures are = 3, e.g. <b>1</b>",
            "sk-learn, eyJ and \u{1f600} \"quoted\" 'text'\n\n",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
