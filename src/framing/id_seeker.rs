//! Finds the id of a message that is not kept, or is not valid JSON: byte by byte, in constant memory.

/// Maximum length of an id that is found, in raw bytes.
const LONGEST_ID: usize = 256;

/// Finds the id of the request that a frame answers, anywhere in the frame's top level.
///
/// It never fails: invalid JSON is skipped as well as possible. A frame has no id if it has a `method`, or neither a
/// `result` nor an object as its `error`, since it may be a log line that happens to have an id; if it has two ids;
/// if it does not begin with `{`; or if it ends within its id.
#[derive(Debug, Default)]
pub struct IdSeeker {
    position: Position,
    escape: Escape,
    key: KeyStart,
    /// Number of open containers within the top-level object.
    depth: u64,
    id: Vec<u8>,
    complete: bool,
    /// Whether the key `id` was found.
    seen: bool,
    /// Whether the id must not be used.
    spoilt: bool,
    /// Whether a member was found that only answers have.
    answers: bool,
}

/// The position of the next byte: in the top-level object itself, or in a value.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Position {
    #[default]
    Outside,
    BeforeKey,
    InKey,
    BehindKey,
    BeforeValue,
    InIdString,
    InIdNumber,
    /// In or after any other value, outside its strings.
    InValue,
    InString,
    Over,
}

impl IdSeeker {
    /// Processes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.position != Position::Over {
            if self.position == Position::InString && self.escape == Escape::None {
                // Most bytes of a large frame are in strings: only the closing quote and escapes matter.
                let plain = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                rest = &rest[plain..];
            }
            let Some((&byte, after)) = rest.split_first() else { return };
            self.step(byte);
            rest = after;
        }
    }

    /// Returns the raw JSON of the id: a string with its quotes, or a number.
    pub fn id(&self) -> Option<Vec<u8>> {
        (self.complete && self.answers && !self.spoilt).then(|| self.id.clone())
    }

    fn step(&mut self, byte: u8) {
        match self.position {
            Position::Outside => match byte {
                b'{' => self.position = Position::BeforeKey,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => self.position = Position::Over,
            },
            Position::BeforeKey => match byte {
                b'"' => {
                    self.key = KeyStart::default();
                    self.position = Position::InKey;
                }
                b'}' => self.position = Position::Over,
                _ => {}
            },
            Position::InKey => match self.escape.read(byte) {
                Read::Nothing => {}
                Read::Character(byte) => self.key.push(byte),
                Read::End => {
                    self.answers |= self.key.name() == b"result";
                    self.position = Position::BehindKey;
                }
            },
            Position::BehindKey => match byte {
                b':' => self.position = Position::BeforeValue,
                b',' => self.position = Position::BeforeKey,
                b'}' => self.position = Position::Over,
                _ => {}
            },
            Position::BeforeValue => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => self.begin_value(byte),
            },
            Position::InIdString => {
                self.remember(byte);
                if self.escape.read(byte) == Read::End {
                    self.complete = true;
                    self.position = Position::InValue;
                }
            }
            Position::InIdNumber if matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') => {
                self.remember(byte);
            }
            Position::InIdNumber => {
                let ended = matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
                self.complete = ended && self.id != b"-";
                self.position = Position::InValue;
                self.step(byte);
            }
            Position::InValue => self.step_value(byte),
            Position::InString => {
                if self.escape.read(byte) == Read::End {
                    self.position = Position::InValue;
                }
            }
            Position::Over => {}
        }
    }

    fn begin_value(&mut self, byte: u8) {
        let id = self.key.name() == b"id";
        self.spoilt |= self.key.name() == b"method" || (id && self.seen);
        self.seen |= id;
        self.answers |= self.key.name() == b"error" && byte == b'{';
        match byte {
            b'"' if id => {
                self.remember(byte);
                self.position = Position::InIdString;
            }
            b'-' | b'0'..=b'9' if id => {
                self.remember(byte);
                self.position = Position::InIdNumber;
            }
            _ => {
                self.position = Position::InValue;
                self.step_value(byte);
            }
        }
    }

    fn step_value(&mut self, byte: u8) {
        match byte {
            b'"' => self.position = Position::InString,
            b'{' | b'[' => self.depth += 1,
            b'}' if self.depth == 0 => self.position = Position::Over,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth == 0 => self.position = Position::BeforeKey,
            _ => {}
        }
    }

    fn remember(&mut self, byte: u8) {
        if self.id.len() == LONGEST_ID {
            self.spoilt = true;
        } else {
            self.id.push(byte);
        }
    }
}

/// The progress of reading an escape in a string.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    /// Within `\uXXXX`: the number of missing digits, and the value of the others.
    Unit(u8, u32),
}

/// The part of a string that a byte completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Nothing,
    /// A character, or one of its bytes. All escaped characters beyond ASCII become the same byte: no known key has
    /// one.
    Character(u8),
    /// The end of the string.
    End,
}

impl Escape {
    fn read(&mut self, byte: u8) -> Read {
        match (*self, byte) {
            (Self::None, b'"') => Read::End,
            (Self::None, b'\\') => self.go_on(Self::Begun),
            (Self::None, _) => Read::Character(byte),
            (Self::Begun, b'u') => self.go_on(Self::Unit(4, 0)),
            (Self::Begun, _) => {
                *self = Self::None;
                // Escaped letters are control characters, which no known key has.
                Read::Character(if byte.is_ascii_alphabetic() { 0xff } else { byte })
            }
            (Self::Unit(left, unit), _) => match (left, char::from(byte).to_digit(16)) {
                (1, Some(digit)) => {
                    *self = Self::None;
                    let ascii = u8::try_from(unit << 4 | digit).ok().filter(u8::is_ascii);
                    Read::Character(ascii.unwrap_or(0xff))
                }
                (_, Some(digit)) => self.go_on(Self::Unit(left - 1, unit << 4 | digit)),
                (_, None) => {
                    *self = Self::None;
                    self.read(byte)
                }
            },
        }
    }

    fn go_on(&mut self, next: Self) -> Read {
        *self = next;
        Read::Nothing
    }
}

/// The beginning of a key, long enough to recognize the known ones.
#[derive(Debug, Default)]
struct KeyStart {
    start: [u8; 8],
    length: usize,
}

impl KeyStart {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.start.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// Returns the key without escapes, cut after eight bytes.
    fn name(&self) -> &[u8] {
        &self.start[..self.length]
    }
}
