//! The gateway's keys while it runs: read from `--gateway-key` or random, replaced when the file changes, and published.

use super::key::Keys;
use super::published::Published;
use super::token::Minter;
use crate::mounted::{self, Mounted, MountedFile};
use crate::telemetry::counters::{FAILED_RELOADS, Reloaded};
use crate::{audit, tasks};
use std::path::Path;
use std::sync::Arc;

/// The keys, and who needs them.
#[derive(Clone, Debug)]
pub(super) struct Signing {
    pub minter: Arc<Minter>,
    /// For the sidecars that the gateway runs.
    pub published: Published,
}

impl Signing {
    /// Reads the keys, and follows changes of their file. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// In words.
    pub(super) fn start(issuer: &str, file: Option<&Path>) -> Result<Self, String> {
        let mut mounted = file.map(|file| Mounted::new([file]));
        let keys = match &mut mounted {
            Some(mounted) => mounted.read().map_err(|unreadable| unreadable.to_string()).and_then(keys),
            None => Keys::generate().map_err(str::to_owned),
        };
        let minter = Arc::new(Minter::new(issuer, keys?));
        let published = Published::new(&minter.key_set());
        let published = published.map_err(|error| format!("cannot keep the key set in memory: {error}"))?;
        let signing = Signing { minter, published };
        if let Some(mounted) = mounted {
            tasks::spawn(signing.clone().watch(mounted));
        }
        Ok(signing)
    }

    /// Uses each new content of the file. One that is unusable changes nothing.
    async fn watch(self, mounted: Mounted) {
        mounted::watch(mounted, move |read| {
            let read = read.map_err(|unreadable| unreadable.to_string());
            match read.and_then(keys).and_then(|keys| self.replace(keys)) {
                Ok(()) => {
                    tracing::info!("the gateway's keys have changed (--gateway-key)");
                    audit::reloaded("--gateway-key");
                }
                Err(reason) => {
                    FAILED_RELOADS.increment(Reloaded::GatewayKey as usize);
                    audit::not_reloaded("--gateway-key", &reason);
                    tracing::error!(
                        "--gateway-key has changed, but is unusable: {reason}; the previous keys stay in use"
                    );
                }
            }
            true
        })
        .await;
    }

    /// Sidecars must find a key before they get a token of it.
    fn replace(&self, keys: Keys) -> Result<(), String> {
        self.published.replace(&keys.set()).map_err(|error| format!("cannot publish the keys: {error}"))?;
        self.minter.replace(keys);
        Ok(())
    }
}

fn keys(files: Vec<MountedFile>) -> Result<Keys, String> {
    let bytes = files.first().map_or(&[][..], |file| &file.bytes);
    Keys::read(bytes).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::{OPENSSL, OTHER};
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[tokio::test]
    async fn a_changed_key_is_used_and_a_bad_one_is_not() {
        mounted::set_interval(Duration::from_millis(10));
        let path = std::env::temp_dir().join(format!("proxyrunner-signing-{}", std::process::id()));
        fs::write(&path, OPENSSL).expect("written");
        let signing = Signing::start("http://gateway", Some(&path)).expect("keys");
        let (first, failed) = (signing.minter.key_set(), FAILED_RELOADS.value(Reloaded::GatewayKey as usize));
        fs::write(&path, "nonsense").expect("written");
        while FAILED_RELOADS.value(Reloaded::GatewayKey as usize) == failed {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(signing.minter.key_set(), first);
        fs::write(&path, format!("{OTHER}{OPENSSL}")).expect("written");
        while signing.minter.key_set() == first {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = fs::remove_file(path);
        let missing = Signing::start("http://gateway", Some(Path::new("/nonexistent/key"))).map(drop);
        assert_eq!(
            missing,
            Err("cannot read /nonexistent/key: No such file or directory (os error 2)".to_owned())
        );
        assert!(Signing::start("http://gateway", None).is_ok());
    }
}
