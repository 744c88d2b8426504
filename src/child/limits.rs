//! A server's resource limits and identity, set right before it is executed.

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use std::ffi::OsStr;
use std::io;

/// The limits of a server. An absent limit is inherited from proxyrunner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `--child-memory`: bytes of address space.
    pub memory: Option<u64>,
    /// `--child-nofile`, or the limits on open files that proxyrunner was started with: soft, hard.
    pub files: Option<(u64, u64)>,
    /// `--child-nice`: from -20, the highest priority, to 19.
    pub nice: Option<i32>,
    /// `--child-user` and `--child-group`.
    pub identity: Option<Identity>,
    /// `--no-new-privileges`: no executed program gains privileges.
    pub no_new_privileges: bool,
    /// Number of files that the program inherits, beside its pipes.
    pub handed: u32,
}

/// The user and groups of a server's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user; `None` for proxyrunner's own.
    pub user: Option<u32>,
    /// The group.
    pub group: u32,
    /// The supplementary groups.
    pub others: Vec<u32>,
}

impl Limits {
    /// Encodes the limits as one word of the guardian's command line.
    pub fn word(&self) -> String {
        let mut words = Vec::new();
        if let Some(memory) = self.memory {
            words.push(format!("memory={memory}"));
        }
        if let Some((soft, hard)) = self.files {
            words.push(format!("files={soft}/{hard}"));
        }
        if let Some(nice) = self.nice {
            words.push(format!("nice={nice}"));
        }
        if let Some(Identity { user, group, others }) = &self.identity {
            let user = user.map_or_else(String::new, |user| user.to_string());
            let others: Vec<_> = others.iter().map(u32::to_string).collect();
            words.push(format!("identity={user}/{group}/{}", others.join("+")));
        }
        if self.no_new_privileges {
            words.push("no-new-privileges=".to_owned());
        }
        if self.handed > 0 {
            words.push(format!("handed={}", self.handed));
        }
        words.join(",")
    }

    /// Decodes the limits; `None` if the word is malformed.
    pub fn parse(word: &OsStr) -> Option<Self> {
        let mut limits = Limits::default();
        for word in word.to_str()?.split(',').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=')?;
            match name {
                "memory" => limits.memory = Some(value.parse().ok()?),
                "files" => {
                    let (soft, hard) = value.split_once('/')?;
                    limits.files = Some((soft.parse().ok()?, hard.parse().ok()?));
                }
                "nice" => limits.nice = Some(value.parse().ok()?),
                "identity" => limits.identity = Some(Identity::parse(value)?),
                "no-new-privileges" => limits.no_new_privileges = true,
                "handed" => limits.handed = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(limits)
    }

    /// Sets the limits for this process. Those that need privileges are set before privileges are dropped.
    ///
    /// # Errors
    /// When the system refuses a limit.
    pub fn apply(&self) -> io::Result<()> {
        if let Some((soft, hard)) = self.files {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        if let Some(memory) = self.memory {
            setrlimit(Resource::RLIMIT_AS, memory, memory)?;
        }
        if let Some(nice) = self.nice {
            // SAFETY: setpriority(2) accesses no memory of this process.
            if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if let Some(Identity { user, group, others }) = &self.identity {
            let others: Vec<Gid> = others.iter().map(|&group| Gid::from_raw(group)).collect();
            setgroups(&others)?;
            setgid(Gid::from_raw(*group))?;
            if let Some(user) = user {
                setuid(Uid::from_raw(*user))?;
            }
        }
        #[cfg(target_os = "linux")]
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs()?;
        }
        Ok(())
    }
}

impl Identity {
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split('/');
        let (user, group, others) = (parts.next()?, parts.next()?, parts.next()?);
        let user = if user.is_empty() { None } else { Some(user.parse().ok()?) };
        let others = others.split('+').filter(|group| !group.is_empty()).map(str::parse);
        Some(Identity { user, group: group.parse().ok()?, others: others.collect::<Result<_, _>>().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_survive_encoding_and_decoding() {
        let identity = |user, others: &[u32]| Some(Identity { user, group: 7, others: others.to_vec() });
        let some = [
            Limits::default(),
            Limits { memory: Some(1 << 33), files: Some((1024, u64::MAX)), ..Limits::default() },
            Limits { nice: Some(-20), identity: identity(None, &[]), ..Limits::default() },
            Limits {
                identity: identity(Some(65534), &[1, 2]),
                no_new_privileges: true,
                handed: 2,
                ..Limits::default()
            },
        ];
        for limits in some {
            assert_eq!(Limits::parse(OsStr::new(&limits.word())), Some(limits));
        }
    }

    #[test]
    fn a_malformed_word_is_rejected() {
        for word in [
            "x",
            "memory=",
            "memory=-1",
            "handed=-1",
            "files=1",
            "identity=1",
            "identity=a/1/",
            "identity=1/2/x",
        ] {
            assert_eq!(Limits::parse(OsStr::new(word)), None, "{word}");
        }
    }
}
