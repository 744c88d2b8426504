//! Keeps the directory current: by the file of servers, and by what finds the replicas of each.

use super::children::Children;
use super::directory::Directory;
use super::dns;
use super::registrations::Registrations;
use super::replica::Endpoint;
use super::servers::{self, Content, Entry, Source};
use crate::mounted::{self, Mounted, MountedFile};
use crate::telemetry::counters::{FAILED_RELOADS, Reloaded};
use crate::{audit, tasks};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The sources of servers. Its tasks end with it.
#[derive(Debug)]
pub(crate) struct Sources {
    inner: Arc<Inner>,
    _watching: DropGuard,
}

#[derive(Debug)]
struct Inner {
    directory: Arc<Directory>,
    /// Runs commands; `None` in tests.
    children: Option<Children>,
    /// Servers that register themselves.
    registrations: Arc<Registrations>,
    /// What runs for each server, by segment.
    running: Mutex<HashMap<Box<str>, Running>>,
    tasks: TaskTracker,
}

/// A task that finds the replicas of a server.
#[derive(Debug)]
struct Running {
    source: Source,
    /// Tells this task from a former one of the same server.
    number: u64,
    _ending: DropGuard,
}

impl Sources {
    /// Reads the file, if there is one, and follows its changes. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Every problem of the file, one line each.
    pub(crate) fn start(
        path: Option<&Path>,
        directory: Arc<Directory>,
        children: Option<Children>,
    ) -> Result<Self, Vec<String>> {
        let mut mounted = Mounted::new(path);
        let files = mounted.read().map_err(|unreadable| vec![unreadable.to_string()])?;
        let content = path.map(|path| parse(path, &files)).transpose()?.unwrap_or_default();
        let registrations = Registrations::new(Arc::clone(&directory));
        let (running, tasks) = Default::default();
        let inner = Arc::new(Inner { directory, children, registrations, running, tasks });
        inner.apply(content);
        let watching = CancellationToken::new();
        let (reloaded, ending) = (Arc::clone(&inner), watching.clone());
        let path = path.unwrap_or(Path::new("")).to_owned();
        tasks::spawn(async move {
            tokio::select! {
                () = reloaded.watch(mounted, path) => {}
                () = Arc::clone(&reloaded.registrations).keep_expiring() => {}
                () = ending.cancelled() => {}
            }
        });
        Ok(Sources { inner, _watching: watching.drop_guard() })
    }

    /// Returns the servers that register themselves.
    pub(crate) fn registrations(&self) -> &Arc<Registrations> {
        &self.inner.registrations
    }

    /// Ends all tasks, and waits until they have ended.
    pub(crate) async fn stop(&self) {
        self.inner.running.lock().clear();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

fn parse(path: &Path, files: &[MountedFile]) -> Result<Content, Vec<String>> {
    servers::read(path, files.first().map_or(&[][..], |file| &file.bytes))
}

impl Inner {
    /// Applies each new content of the file. One that is unusable changes nothing.
    async fn watch(self: &Arc<Self>, mounted: Mounted, path: PathBuf) {
        mounted::watch(mounted, move |read| {
            let read = read.map_err(|unreadable| vec![unreadable.to_string()]);
            match read.and_then(|files| parse(&path, &files)) {
                Ok(content) => {
                    tracing::info!(servers = content.servers.len(), "the servers have changed (--servers)");
                    audit::reloaded("--servers");
                    self.apply(content);
                }
                Err(problems) => {
                    FAILED_RELOADS.increment(Reloaded::Servers as usize);
                    audit::not_reloaded("--servers", problems.first().map_or("", |problem| problem));
                    for problem in problems {
                        tracing::error!(
                            "--servers has changed, but is unusable: {problem}; the previous servers stay"
                        );
                    }
                }
            }
            true
        })
        .await;
    }

    /// Replaces all servers. The task of a server whose source stays goes on.
    fn apply(self: &Arc<Self>, Content { servers: entries, rules }: Content) {
        let mut running = self.running.lock();
        let mut next = HashMap::with_capacity(entries.len());
        let mut begin = Vec::new();
        let servers = entries.into_iter().map(|Entry { about, source }| {
            let segment = about.segment.clone();
            let endpoints = match (running.remove(&segment), source) {
                (_, Source::Urls(urls)) => Some(urls),
                (Some(same), source) if same.source == source => {
                    next.insert(segment, same);
                    None
                }
                (_, source) => {
                    begin.push((segment, source));
                    Some(Vec::new())
                }
            };
            (about, endpoints)
        });
        self.directory.replace(servers.collect());
        for (segment, source) in begin {
            let started = self.begin(segment.clone(), source);
            next.insert(segment, started);
        }
        // The tasks of what is left end here.
        *running = next;
        self.registrations.set_rules(rules);
    }

    /// Starts the task of a server. It tells nothing before `running` is unlocked.
    fn begin(self: &Arc<Self>, segment: Box<str>, source: Source) -> Running {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let ending = CancellationToken::new();
        let (inner, found, ended) = (Arc::clone(self), source.clone(), ending.clone());
        tasks::spawn(self.tasks.track_future(async move {
            let tell = |endpoints| inner.found(&segment, number, endpoints);
            match found {
                Source::Dns(endpoint) => {
                    let lookup = |name: String| async move { dns::places(&name).await };
                    tokio::select! {
                        () = dns::follow(&endpoint, lookup, tell) => {}
                        () = ended.cancelled() => {}
                    }
                }
                Source::Command(command) => {
                    if let Some(children) = inner.children.clone() {
                        children.run(&segment, &command, ended, tell).await;
                    }
                }
                Source::Urls(_) => {}
            }
        }));
        Running { source, number, _ending: ending.drop_guard() }
    }

    /// Sets the replicas that a task has found, unless another one has taken its place.
    fn found(&self, segment: &str, number: u64, endpoints: Vec<Endpoint>) {
        let running = self.running.lock();
        if running.get(segment).is_some_and(|task| task.number == number) {
            self.directory.set_endpoints(segment, endpoints);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    fn file(name: &str, content: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("proxyrunner-sources-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(name);
        fs::write(&path, content).expect("written");
        path
    }

    fn addresses(directory: &Directory, segment: &str) -> Option<Vec<String>> {
        let replicas = directory.find(segment)?.replicas();
        Some(replicas.iter().map(|replica| replica.endpoint.address().to_owned()).collect())
    }

    /// Waits until a server has these replicas.
    async fn until(directory: &Directory, segment: &str, expected: Option<&[&str]>) {
        while addresses(directory, segment)
            .as_deref()
            .map(|found| found.iter().map(|a| &**a).collect::<Vec<_>>())
            != expected.map(<[_]>::to_vec)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_applied_and_a_bad_one_is_not() {
        mounted::set_interval(Duration::from_millis(10));
        let path = file("changes", "mcpServers: {a: {url: 'http://a:1/mcp'}, b: {url: 'http://b:1/mcp'}}");
        let directory = Arc::new(Directory::default());
        let sources = Sources::start(Some(&path), Arc::clone(&directory), None).expect("servers");
        assert_eq!(addresses(&directory, "a").as_deref(), Some(&["a:1".to_owned()][..]));
        let failed = FAILED_RELOADS.value(Reloaded::Servers as usize);
        fs::write(&path, "mcpServers: {a: {}}").expect("written");
        while FAILED_RELOADS.value(Reloaded::Servers as usize) == failed {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(addresses(&directory, "b").is_some(), "the previous ones stay");
        fs::write(
            &path,
            "mcpServers: {a: {dns: 'http://localhost:2/mcp'}, c: {dns: 'http://localhost:3/mcp'}}",
        )
        .expect("written");
        until(&directory, "a", Some(&["127.0.0.1:2", "[::1]:2"])).await;
        until(&directory, "b", None).await;
        until(&directory, "c", Some(&["127.0.0.1:3", "[::1]:3"])).await;
        let kept = directory.find("c").expect("a server").replicas();
        fs::write(&path, "mcpServers: {c: {dns: 'http://localhost:3/mcp', description: x}}")
            .expect("written");
        until(&directory, "a", None).await;
        let after = directory.find("c").expect("a server");
        assert!(Arc::ptr_eq(&kept, &after.replicas()) && after.about.description.is_some());
        sources.stop().await;
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_at_start_is_refused() {
        let start =
            |path: &Path| Sources::start(Some(path), Arc::default(), None).map(drop).expect_err("refused");
        let missing = start(Path::new("/nonexistent/servers.json"));
        assert_eq!(
            missing,
            ["cannot read /nonexistent/servers.json: No such file or directory (os error 2)"]
        );
        let bad = start(&file("bad", "mcpServers: {a: {}, b: {}}"));
        assert_eq!(bad.len(), 2, "{bad:?}");
    }
}
