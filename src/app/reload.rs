//! Applies changes of mounted files while proxyrunner runs. A file that is missing or malformed changes nothing.

use crate::audit;
use crate::config::{Config, note_unusable};
use crate::http::Server;
#[cfg(feature = "gateway")]
use crate::mounted::Mounted;
use crate::mounted::{self, MountedFile};
use crate::tasks;
use crate::telemetry::counters::Reloaded;
use crate::upstream::SealKeys;
use std::sync::Arc;

/// Starts a task for each setting whose files are watched.
pub(super) fn start(config: &Config, server: &Arc<Server>) {
    if let Some(state_keys) = config.mounts.state_keys.clone() {
        let server = Arc::clone(server);
        tasks::spawn(mounted::watch(state_keys, move |read| {
            match read.map_err(|unreadable| unreadable.to_string()).and_then(|files| keys(&files)) {
                Ok(keys) => {
                    server.upstream.reseal(&keys);
                    #[cfg(feature = "gateway")]
                    if let Some(gateway) = &server.gateway {
                        gateway.reseal(&keys);
                    }
                    #[cfg(feature = "gateway")]
                    if let Some(siblings) = &server.siblings {
                        siblings.reseal(&keys);
                    }
                    tracing::info!("the state key has changed (--state-key-file)");
                    audit::reloaded("--state-key-file");
                }
                Err(reason) => note_unusable(Reloaded::StateKey, "--state-key-file", &reason),
            }
            true
        }));
    }
    #[cfg(feature = "gateway")]
    if let Some((siblings, files)) =
        server.siblings.clone().zip(config.forwarding.as_ref().and_then(|forwarding| forwarding.tls.clone()))
    {
        // What cannot be used is told and counted where clients are served with it.
        tasks::spawn(mounted::watch(Mounted::new(files.paths()), move |read| {
            let renewed = read.map_err(|unreadable| unreadable.to_string()).and_then(|contents| {
                let tls = files.read(contents.iter().map(|file| file.bytes.as_slice()))?;
                siblings.renew(&tls).map_err(|error| error.to_string())
            });
            if let Err(reason) = renewed {
                tracing::warn!(%reason, "the changed certificates are not used between replicas (--forward-sessions)");
            }
            true
        }));
    }
    if let Some(env) = config.mounts.env.clone() {
        let (files, upstream) = (config.child.env_files.clone(), Arc::clone(&server.upstream));
        let restarts = env.restarts;
        tasks::spawn(env.watch(files, move || {
            audit::reloaded("--env-file");
            if restarts {
                tracing::info!(
                    "the variables of the server have changed; replacing its processes (--env-file)"
                );
                upstream.renew();
            } else {
                tracing::info!(
                    "the variables of the server have changed; new processes get them (--env-file)"
                );
            }
        }));
    }
}

fn keys(files: &[MountedFile]) -> Result<SealKeys, String> {
    let bytes = files.first().map_or(&[][..], |file| &file.bytes);
    SealKeys::read(bytes).map_err(|reason| format!("the file {reason}"))
}
