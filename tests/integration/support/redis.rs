//! A Redis that answers what a test tells it, and keeps the commands that it has received.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The server, which runs as long as the test.
pub struct Redis {
    /// Its port on this host.
    pub port: u16,
    received: Arc<Mutex<Vec<Vec<String>>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

/// What most commands get.
pub const OK: &str = "+OK\r\n";
/// In place of an answer: there is none.
pub const SILENCE: &str = "";

impl Redis {
    /// Starts a server that asks this for the answer to each command, in Redis' protocol.
    pub fn answering(answer: impl Fn(&[String]) -> String + Send + Sync + 'static) -> Redis {
        Redis::on(TcpListener::bind("127.0.0.1:0").expect("a listener"), answer)
    }

    /// As [`Redis::answering`], at a listener.
    pub fn on(listener: TcpListener, answer: impl Fn(&[String]) -> String + Send + Sync + 'static) -> Redis {
        let port = listener.local_addr().expect("an address").port();
        let (received, open, answer) = (Arc::default(), Arc::<Mutex<Vec<_>>>::default(), Arc::new(answer));
        let (kept, streams) = (Arc::clone(&received), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                locked(&streams).push(stream.try_clone().expect("a stream"));
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || converse(stream, &kept, &*answer));
            }
        });
        Redis { port, received, open }
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the commands so far with this name.
    pub fn commands(&self, name: &str) -> Vec<Vec<String>> {
        locked(&self.received).iter().filter(|words| words[0] == name).cloned().collect()
    }

    /// Closes all connections.
    pub fn cut(&self) {
        locked(&self.open).drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn converse(
    stream: TcpStream,
    kept: &Mutex<Vec<Vec<String>>>,
    answer: &(dyn Fn(&[String]) -> String + Sync),
) {
    let mut reader = BufReader::new(stream);
    while let Some(words) = read(&mut reader) {
        locked(kept).push(words.clone());
        if reader.get_mut().write_all(answer(&words).as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads a command.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let number = |reader: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line[1..].trim_end().parse::<usize>().expect("a number"))
    };
    let mut words = Vec::new();
    for _ in 0..number(reader)? {
        let mut word = vec![0; number(reader)? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).expect("UTF-8"));
    }
    Some(words)
}
