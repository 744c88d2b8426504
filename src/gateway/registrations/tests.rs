//! Registrations: whose they are, where they may be, how many, and how they end.

use super::super::servers;
use super::record::Heard;
use super::*;
use crate::identity::{Identity, Means};
use std::path::Path;

const ISSUER: &str = "https://k8s.example";

fn caller(subject: &str) -> Identity {
    Identity::issued(&ISSUER.into(), subject, Means::Token)
}

fn rules(text: &str) -> Vec<Rule> {
    let file = format!("mcpServers: {{}}\nregister: {text}");
    servers::read(Path::new("servers.yaml"), file.as_bytes()).expect("rules").rules
}

/// A gateway where service accounts of `tools` may register names of `com.example` in one network.
struct Gateway {
    directory: Arc<Directory>,
    registrations: Arc<Registrations>,
    begun: Instant,
}

impl Gateway {
    fn new() -> Self {
        Gateway::with(
            "[{subject: 'https://k8s.example#tools:*', names: ['com.example/*'], networks: [10.0.0.0/8, 'fd00::/8']}]",
        )
    }

    fn with(text: &str) -> Self {
        let directory = Arc::<Directory>::default();
        let registrations = Registrations::new(Arc::clone(&directory));
        registrations.set_rules(rules(text));
        Gateway { directory, registrations, begun: Instant::now() }
    }

    fn put(&self, subject: &str, name: &str, url: &str) -> Result<String, Refused> {
        self.put_at(subject, name, url, None, self.begun)
    }

    fn put_at(
        &self,
        subject: &str,
        name: &str,
        url: &str,
        sequence: Option<u64>,
        now: Instant,
    ) -> Result<String, Refused> {
        let claim = Claim { name, url, sequence, description: None };
        self.registrations.register(&caller(subject), &claim, now)
    }

    fn delete(&self, subject: &str, name: &str, url: &str, sequence: Option<u64>) -> Result<(), Refused> {
        let claim = Claim { name, url, sequence, description: None };
        self.registrations.withdraw(&caller(subject), &claim, self.begun)
    }

    fn addresses(&self, segment: &str) -> Option<Vec<String>> {
        let replicas = self.directory.find(segment)?.replicas();
        Some(replicas.iter().map(|replica| replica.endpoint.address().to_owned()).collect())
    }
}

fn status(refused: &Result<String, Refused>) -> u16 {
    match refused {
        Ok(_) => 200,
        Err(Refused::Malformed(_)) => 400,
        Err(Refused::Forbidden(_)) => 403,
        Err(Refused::Unknown(_)) => 404,
        Err(Refused::Conflict(_)) => 409,
        Err(Refused::TooMany(_)) => 429,
        Err(Refused::Full(_)) => 503,
    }
}

const TIME: &str = "com.example/time";
const ONE: &str = "http://10.0.0.1:8080/mcp";
const TWO: &str = "http://10.0.0.2:8080/mcp";

#[test]
fn replicas_of_one_caller_are_one_server() {
    let gateway = Gateway::new();
    assert_eq!(gateway.put("tools:a", TIME, TWO), Ok("time".to_owned()));
    assert_eq!(gateway.put("tools:a", TIME, ONE), Ok("time".to_owned()));
    assert_eq!(gateway.put("tools:a", TIME, ONE), Ok("time".to_owned()), "a renewal");
    assert_eq!(gateway.addresses("time").expect("a server"), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    let server = gateway.directory.find("time").expect("a server");
    assert_eq!(server.about.name, TIME);
    assert!(server.about.audiences.is_empty(), "a token for it is for no other server");
    let before = server.replicas();
    assert_eq!(gateway.delete("tools:a", TIME, TWO, None), Ok(()));
    let after = gateway.directory.find("time").expect("a server").replicas();
    assert!(after.len() == 1 && Arc::ptr_eq(&before[0], &after[0]), "the other one keeps its state");
    assert_eq!(gateway.delete("tools:a", TIME, ONE, None), Ok(()));
    assert!(gateway.directory.find("time").is_none());
    assert!(matches!(gateway.delete("tools:a", TIME, ONE, None), Err(Refused::Unknown(_))));
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let gateway = Gateway::new();
    let later = gateway.begun + LEASE / 2;
    gateway.put("tools:a", TIME, ONE).expect("registered");
    gateway.put("tools:a", TIME, TWO).expect("registered");
    gateway.put_at("tools:a", TIME, TWO, None, later).expect("renewed");
    gateway.registrations.expire(gateway.begun + LEASE - Duration::from_millis(1));
    assert_eq!(gateway.addresses("time").map(|found| found.len()), Some(2));
    gateway.registrations.expire(gateway.begun + LEASE);
    assert_eq!(gateway.addresses("time").expect("a server"), ["10.0.0.2:8080"]);
    gateway.registrations.expire(later + LEASE);
    assert!(gateway.directory.find("time").is_none());
    assert_eq!(gateway.put("tools:b", TIME, ONE), Ok("time".to_owned()), "the name is free again");
}

#[test]
fn a_name_belongs_to_the_caller_who_registered_it() {
    let gateway = Gateway::new();
    gateway.put("tools:a", TIME, ONE).expect("registered");
    for url in [ONE, TWO] {
        let refused = gateway.put("tools:b", TIME, url);
        assert_eq!(
            refused,
            Err(Refused::Conflict("com.example/time is registered by another caller".to_owned()))
        );
    }
    let refused = gateway.delete("tools:b", TIME, ONE, None);
    assert!(matches!(refused, Err(Refused::Forbidden(_))), "{refused:?}");
    // The same subject of another issuer is another caller.
    let other = Identity::issued(&"https://other.example".into(), "tools:a", Means::Token);
    let claim = Claim { name: TIME, url: ONE, sequence: None, description: None };
    let refused = gateway.registrations.register(&other, &claim, gateway.begun);
    assert_eq!(status(&refused), 403);
    assert_eq!(gateway.addresses("time").expect("a server"), ["10.0.0.1:8080"]);
}

#[test]
fn only_what_a_rule_allows_is_registered() {
    let gateway = Gateway::new();
    for (subject, name, url, expected) in [
        ("tools:a", "com.example/time", "http://[fd00::1]:8080/mcp", 200),
        ("other:a", "com.example/time", ONE, 403),
        ("tools:a", "org.example/time", ONE, 403),
        ("tools:a", "com.example.evil/time", ONE, 403),
        ("tools:a", "time", ONE, 400),
        ("tools:a", "com.example/a__b", ONE, 400),
        ("tools:a", "com.example/Time", ONE, 400),
        ("tools:a", "com.example/a/b", ONE, 400),
        ("tools:a", "", ONE, 400),
    ] {
        let done = gateway.put(subject, name, url);
        assert_eq!(status(&done), expected, "{subject} {name} {url}: {done:?}");
    }
    let anonymous = Identity::anonymous();
    let claim = Claim { name: TIME, url: ONE, sequence: None, description: None };
    let refused = gateway.registrations.register(&anonymous, &claim, gateway.begun);
    assert_eq!(refused, Err(Refused::Forbidden("only identified callers may register".to_owned())));
    let off = Gateway::with("[]");
    let refused = off.put("tools:a", TIME, ONE).expect_err("refused");
    assert!(format!("{refused:?}").contains("registration is off"), "{refused:?}");
}

#[test]
fn a_url_leads_to_no_place_that_is_not_meant() {
    let everywhere = Gateway::with(
        "[{subject: 'https://k8s.example#*', names: ['com.example/*'], networks: [0.0.0.0/0, '::/0']}]",
    );
    for (url, expected) in [
        ("http://10.0.0.1:8080/mcp", 200),
        ("https://10.0.0.1/mcp", 200),
        ("http://192.168.0.1", 200),
        ("http://[2001:db8::1]:80/mcp", 200),
        ("http://127.0.0.1:8080/mcp", 403),
        ("http://127.255.0.9:8080/mcp", 403),
        ("http://[::1]:8080/mcp", 403),
        ("http://[::ffff:127.0.0.1]:8080/mcp", 403),
        ("http://0.0.0.0:8080/mcp", 403),
        ("http://[::]:8080/mcp", 403),
        ("http://169.254.169.254/latest/meta-data", 403),
        ("http://[::ffff:169.254.169.254]/", 403),
        ("http://[64:ff9b::169.254.169.254]/", 403),
        ("http://[2002:a9fe:a9fe::]/", 403),
        ("http://[::169.254.169.254]/", 403),
        ("http://[fe80::1]/mcp", 403),
        ("http://[fd00:ec2::254]/mcp", 403),
        ("http://100.100.100.200/mcp", 403),
        ("http://168.63.129.16/mcp", 403),
        ("http://224.0.0.1/mcp", 403),
        ("http://[ff02::1]/mcp", 403),
        ("http://255.255.255.255/mcp", 403),
        ("http://time.tools.svc:8080/mcp", 400),
        ("http://localhost:8080/mcp", 400),
        ("http://2130706433/mcp", 400),
        ("http://0x7f.1/mcp", 400),
        ("http://127.1/mcp", 400),
        ("http://user@10.0.0.1/mcp", 400),
        ("http://10.0.0.1/mcp?a=b", 400),
        ("http://10.0.0.1/mcp#a", 400),
        ("http://10.0.0.1:0/mcp", 400),
        ("http://10.0.0.1:99999/mcp", 400),
        ("ftp://10.0.0.1/mcp", 400),
        ("file:///etc/passwd", 400),
        ("/mcp", 400),
        ("", 400),
    ] {
        let done = everywhere.put("tools:a", TIME, url);
        assert_eq!(status(&done), expected, "{url}: {done:?}");
        assert!(!format!("{done:?}").contains("user@"), "{done:?}");
    }
    let here = Gateway::with(
        "[{subject: 'https://k8s.example#*', names: ['com.example/*'], networks: [127.0.0.0/8]}]",
    );
    assert_eq!(status(&here.put("tools:a", TIME, "http://127.0.0.1:1/mcp")), 200, "this host is meant");
    assert_eq!(status(&here.put("tools:a", TIME, ONE)), 403);
}

#[test]
fn servers_of_the_file_come_first() {
    let gateway = Gateway::new();
    gateway.put("tools:a", TIME, ONE).expect("registered");
    let about = |name: &str| Description {
        name: name.to_owned(),
        segment: name.rsplit('/').next().unwrap_or_default().into(),
        description: None,
        labels: BTreeMap::new(),
        headers: HeaderMap::new(),
        audiences: Vec::new(),
        tools: Default::default(),
        is_required: false,
    };
    let own = Endpoint::parse("http://own:1/mcp").expect("a URL");
    gateway.directory.replace(vec![(about("time"), Some(vec![own]))]);
    assert_eq!(gateway.addresses("time").expect("a server"), ["own:1"]);
    assert_eq!(status(&gateway.put("tools:a", TIME, ONE)), 409);
    gateway.put("tools:a", "com.example/more", TWO).expect("registered");
    assert_eq!(gateway.addresses("time").expect("a server"), ["own:1"]);
    gateway.directory.replace(Vec::new());
    assert!(gateway.directory.find("time").is_none());
    gateway.put("tools:a", TIME, ONE).expect("renewed");
    assert_eq!(gateway.addresses("time").expect("a server"), ["10.0.0.1:8080"]);
    assert_eq!(gateway.addresses("more").expect("a server"), ["10.0.0.2:8080"]);
}

#[test]
fn two_names_do_not_share_a_path() {
    let gateway = Gateway::with(
        "[{subject: 'https://k8s.example#*', names: ['com.example/*', 'org.example/*'], networks: [10.0.0.0/8]}]",
    );
    gateway.put("a", TIME, ONE).expect("registered");
    let refused = gateway.put("a", "org.example/time", TWO);
    assert_eq!(refused, Err(Refused::Conflict("the path of time belongs to com.example/time".to_owned())));
    let refused = gateway.delete("a", "org.example/time", ONE, None);
    assert!(matches!(refused, Err(Refused::Unknown(_))), "{refused:?}");
}

#[test]
fn an_older_message_does_not_undo_a_newer_one() {
    let gateway = Gateway::new();
    let put = |sequence| gateway.put_at("tools:a", TIME, ONE, Some(sequence), gateway.begun);
    put(5).expect("registered");
    assert_eq!(status(&put(5)), 409, "a replay");
    assert_eq!(status(&put(4)), 409);
    put(6).expect("renewed");
    assert!(matches!(gateway.delete("tools:a", TIME, ONE, Some(6)), Err(Refused::Conflict(_))));
    gateway.delete("tools:a", TIME, ONE, Some(8)).expect("withdrawn");
    assert_eq!(status(&put(7)), 409, "sent before the withdrawal");
    assert!(gateway.directory.find("time").is_none());
    put(9).expect("registered again");
    gateway.registrations.expire(gateway.begun + LEASE);
    put(1).expect("nothing is remembered after the lease");
}

#[test]
fn numbers_are_bounded_for_each_caller_and_for_all() {
    let gateway = Gateway::new();
    let url = |at: usize| format!("http://10.0.{}.{}:8080/mcp", at / 250, at % 250 + 1);
    let names = (0..10_000).map(|at| gateway.put("tools:a", &format!("com.example/a{at}"), ONE));
    assert_eq!(names.filter(Result::is_ok).count(), MOST_NAMES_OF_ONE);
    assert_eq!(status(&gateway.put("tools:a", "com.example/more", ONE)), 429);
    assert_eq!(status(&gateway.put("tools:a", "com.example/a0", ONE)), 200, "renewals go on");
    // Other callers, without the work of showing each of their servers.
    for at in MOST_NAMES_OF_ONE..MOST_NAMES {
        let endpoint = Endpoint::parse(ONE).expect("a URL");
        let lease = Lease::begin(endpoint, 0, gateway.begun);
        let (name, owner) = (format!("com.example/b{at}"), format!("b{at}"));
        let server = Registered { name, owner, description: None, leases: vec![lease] };
        gateway.registrations.state.lock().servers.insert(format!("b{at}").into(), server);
    }
    assert_eq!(status(&gateway.put("tools:c", "com.example/c", ONE)), 503);
    gateway.registrations.expire(gateway.begun + LEASE);
    let replicas = (0..600).map(|at| gateway.put("tools:a", TIME, &url(at)));
    assert_eq!(replicas.filter(Result::is_ok).count(), MOST_REPLICAS_OF_ONE);
    // One that comes and goes takes no more room than one that stays.
    for at in 0..MOST_REPLICAS_OF_ONE {
        gateway.delete("tools:a", TIME, &url(at), None).expect("withdrawn");
    }
    assert_eq!(status(&gateway.put("tools:a", TIME, &url(9_999))), 429);
    gateway.registrations.expire(gateway.begun + LEASE);
    assert_eq!(status(&gateway.put("tools:a", TIME, &url(9_999))), 200);
}

#[test]
fn changed_rules_hold_for_what_is_registered() {
    let gateway = Gateway::new();
    gateway.put("tools:a", TIME, ONE).expect("registered");
    gateway.put("tools:a", TIME, "http://[fd00::1]:8080/mcp").expect("registered");
    gateway.put("tools:b", "com.example/b", ONE).expect("registered");
    let less = "[{subject: 'https://k8s.example#tools:a', names: ['com.example/*'], networks: [10.0.0.0/8]}]";
    gateway.registrations.set_rules(rules(less));
    assert_eq!(gateway.addresses("time").expect("a server"), ["10.0.0.1:8080"]);
    assert!(gateway.directory.find("b").is_none());
    gateway.registrations.set_rules(Vec::new());
    assert!(gateway.directory.find("time").is_none());
}

#[test]
fn a_gateway_that_has_just_started_does_not_know_all_servers() {
    assert!(Gateway::new().registrations.is_incomplete());
    assert!(!Gateway::with("[]").registrations.is_incomplete());
}

impl Gateway {
    /// Returns what this gateway has told since the last time, as it is read so many seconds later.
    fn told(&self, untold: &mut mpsc::Receiver<Record>, later: u64) -> Vec<Heard> {
        let age = Duration::from_secs(later);
        let mut heard = Vec::new();
        while let Ok(record) = untold.try_recv() {
            // A later message about a replica replaces the one before.
            heard.retain(|one: &Heard| one.record.url != record.url);
            heard.push(Heard { record, age, left: LEASE - age });
        }
        heard
    }

    fn hears(&self, heard: Vec<Heard>, later: u64) {
        self.registrations.merge(heard, self.begun + Duration::from_secs(later));
    }
}

#[test]
fn what_one_gateway_has_heard_another_one_knows_until_the_lease_ends() {
    let (one, other) = (Gateway::new(), Gateway::new());
    let mut untold = one.registrations.share();
    one.put_at("tools:a", TIME, ONE, Some(7), one.begun).expect("registered");
    other.hears(one.told(&mut untold, 2), 2);
    assert_eq!(other.addresses("time").expect("a server"), ["10.0.0.1:8080"]);
    assert_eq!(status(&other.put("tools:b", TIME, TWO)), 409, "the name is taken there, too");
    let renewed = other.put_at("tools:a", TIME, ONE, Some(6), other.begun);
    assert_eq!(status(&renewed), 200, "a message that was sent before, but takes another way");
    other.registrations.expire(other.begun + LEASE);
    assert!(other.directory.find("time").is_none());
}

#[test]
fn a_withdrawal_at_one_gateway_is_seen_by_all_and_older_messages_do_not_undo_it() {
    let (one, other) = (Gateway::new(), Gateway::new());
    let mut untold = one.registrations.share();
    for gateway in [&one, &other] {
        gateway.put_at("tools:a", TIME, ONE, Some(7), gateway.begun).expect("registered");
    }
    let before = one.told(&mut untold, 0);
    one.delete("tools:a", TIME, ONE, Some(9)).expect("withdrawn");
    let withdrawn = one.told(&mut untold, 1);
    other.hears(withdrawn.clone(), 1);
    assert!(other.directory.find("time").is_none());
    other.hears(before, 1);
    assert!(other.directory.find("time").is_none(), "it was written before");
    assert_eq!(status(&other.put_at("tools:a", TIME, ONE, Some(8), other.begun)), 409);
    assert_eq!(status(&other.put_at("tools:a", TIME, ONE, Some(10), other.begun)), 200);
    other.hears(withdrawn, 2);
    assert!(other.directory.find("time").is_some(), "it has registered since");
    // A gateway that has never heard of it remembers the withdrawal.
    let third = Gateway::new();
    one.put_at("tools:a", TIME, TWO, Some(7), one.begun).expect("registered");
    one.delete("tools:a", TIME, TWO, Some(9)).expect("withdrawn");
    third.hears(one.told(&mut untold, 1), 1);
    assert!(third.directory.find("time").is_none());
    assert_eq!(status(&third.put_at("tools:a", TIME, TWO, Some(8), third.begun)), 409);
}

#[test]
fn a_replica_that_returns_at_another_gateway_is_seen() {
    let (one, other) = (Gateway::new(), Gateway::new());
    let mut untold = one.registrations.share();
    other.put_at("tools:a", TIME, ONE, None, other.begun).expect("registered");
    other.delete("tools:a", TIME, ONE, None).expect("withdrawn");
    one.put_at("tools:a", TIME, ONE, None, one.begun).expect("registered");
    let heard = one.told(&mut untold, 0);
    other.hears(heard.clone(), 0);
    assert!(other.directory.find("time").is_none(), "nothing tells that it was later");
    other.hears(heard, 5);
    assert!(other.directory.find("time").is_some());
}

#[test]
fn the_rules_of_each_gateway_hold_for_what_others_have_heard() {
    let (one, narrow) = (
        Gateway::new(),
        Gateway::with(
            "[{subject: 'https://k8s.example#tools:a', names: [com.example/time], networks: [10.0.0.1/32]}]",
        ),
    );
    let mut untold = one.registrations.share();
    for (subject, name, url) in [
        ("tools:a", TIME, ONE),
        ("tools:a", TIME, TWO),
        ("tools:a", "com.example/other", ONE),
        ("tools:b", "com.example/b", ONE),
    ] {
        one.put(subject, name, url).expect("registered");
    }
    let heard = one.told(&mut untold, 0);
    assert_eq!(heard.len(), 2, "those of one URL replace each other here");
    narrow.hears(heard, 0);
    assert_eq!(narrow.addresses("time"), None);
    one.put("tools:a", TIME, ONE).expect("renewed");
    narrow.hears(one.told(&mut untold, 0), 0);
    assert_eq!(narrow.addresses("time").expect("a server"), ["10.0.0.1:8080"]);
    assert_eq!(narrow.directory.snapshot().len(), 1);
    let record = |name: &str, url: &str| Heard {
        record: Record {
            name: name.to_owned(),
            owner: "https://k8s.example#tools:a".to_owned(),
            url: url.to_owned(),
            description: Some("\u{7}".to_owned()),
            sequence: 0,
            is_withdrawn: false,
        },
        age: Duration::ZERO,
        left: LEASE,
    };
    let wide = Gateway::with(
        "[{subject: 'https://k8s.example#*', names: ['com.example/*'], networks: [0.0.0.0/0, '::/0']}]",
    );
    let bad = [
        record(TIME, "http://127.0.0.1:8080/mcp"),
        record(TIME, "http://169.254.169.254/mcp"),
        record(TIME, "http://name:8080/mcp"),
        record(TIME, "http://u@10.0.0.1/mcp"),
        record("com.example/a__b", ONE),
        record("time", ONE),
    ];
    wide.hears(bad.to_vec(), 0);
    assert!(wide.directory.snapshot().is_empty());
    wide.hears(vec![record(TIME, ONE)], 0);
    let server = wide.directory.find("time").expect("a server");
    assert_eq!(server.about.description, None, "it is no sentence");
}

#[test]
fn others_cannot_make_a_gateway_know_more_than_its_bounds() {
    let gateway = Gateway::new();
    let record = |number: usize| Heard {
        record: Record {
            name: format!("com.example/s{number}"),
            owner: "https://k8s.example#tools:a".to_owned(),
            url: ONE.to_owned(),
            description: None,
            sequence: 0,
            is_withdrawn: false,
        },
        age: Duration::ZERO,
        left: LEASE,
    };
    gateway.hears((0..MOST_NAMES_OF_ONE * 2).map(record).collect(), 0);
    assert_eq!(gateway.directory.snapshot().len(), MOST_NAMES_OF_ONE);
}

#[test]
fn replicas_that_only_others_know_stay_while_the_others_cannot_be_heard() {
    let (one, other) = (Gateway::new(), Gateway::new());
    let mut untold = one.registrations.share();
    one.put("tools:a", TIME, ONE).expect("registered");
    other.hears(one.told(&mut untold, 0), 0);
    other.put("tools:a", TIME, TWO).expect("registered");
    other.registrations.hold(other.begun + LEASE * 2);
    other.registrations.expire(other.begun + LEASE);
    assert_eq!(other.addresses("time").expect("a server"), ["10.0.0.1:8080"]);
    other.registrations.expire(other.begun + LEASE * 2);
    assert!(other.directory.find("time").is_none());
}
