//! Looks up users and groups by name or number, directly in `/etc/passwd` and `/etc/group`. The C library would load
//! modules from the image, which a static program must not (getpwnam(3) in glibc).

use super::problem::InvalidValue;
use std::fs;

/// A user and its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    /// The primary group.
    pub(super) group: u32,
    /// The supplementary groups.
    pub(super) others: Vec<u32>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its number.
    pub(super) id: u32,
}

/// Finds a user by name or number. A number need not be known to the system.
pub(super) fn user(text: &str) -> Result<User, InvalidValue> {
    find_user(text, &read("/etc/passwd"), &read("/etc/group")).ok_or_else(|| {
        InvalidValue::new("is not a user in /etc/passwd", "give a name from there, or a number")
    })
}

/// Finds a group by name or number.
pub(super) fn group(text: &str) -> Result<Group, InvalidValue> {
    find_group(text, &read("/etc/group")).ok_or_else(|| {
        InvalidValue::new("is not a group in /etc/group", "give a name from there, or a number")
    })
}

/// Reads a file. An image may lack it; then only numbers are known.
fn read(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Finds a user by lines of `name:password:uid:gid:…` (passwd(5)).
fn find_user(text: &str, passwd: &str, groups: &str) -> Option<User> {
    let number: Option<u32> = text.parse().ok();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1), fields.next());
        let (Some(id), Some(group)) =
            (uid.and_then(|id| id.parse().ok()), gid.and_then(|id| id.parse().ok()))
        else {
            continue;
        };
        if name == text || number == Some(id) {
            return Some(User { id, group, others: memberships(name, group, groups) });
        }
    }
    number.map(|id| User { id, group: id, others: Vec::new() })
}

/// Finds a group by lines of `name:password:gid:members` (group(5)).
fn find_group(text: &str, groups: &str) -> Option<Group> {
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == text).then(|| fields.nth(1)?.parse().ok())?
    });
    named.or_else(|| text.parse().ok()).map(|id| Group { id })
}

fn memberships(name: &str, first: u32, groups: &str) -> Vec<u32> {
    let others = groups.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let id = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == name).then_some(id)
    });
    others.filter(|&id| id != first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33:www:/var/www:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nweb:x:33:web\naudio:x:29:other,web\nvideo:x:44:\n";

    #[test]
    fn users_have_their_groups_and_unknown_numbers_are_accepted() {
        let web = User { id: 33, group: 33, others: vec![29] };
        assert_eq!(find_user("web", PASSWD, GROUPS), Some(web.clone()));
        assert_eq!(find_user("33", PASSWD, GROUPS), Some(web));
        let unknown = User { id: 65532, group: 65532, others: vec![] };
        assert_eq!(find_user("65532", PASSWD, GROUPS), Some(unknown));
        assert_eq!(find_user("nobody", PASSWD, GROUPS), None);
        assert_eq!(find_user("-1", PASSWD, GROUPS), None);
        assert_eq!(find_user("", "", ""), None);
    }

    #[test]
    fn groups_are_found_by_name_or_number() {
        assert_eq!(find_group("audio", GROUPS), Some(Group { id: 29 }));
        assert_eq!(find_group("7", GROUPS), Some(Group { id: 7 }));
        assert_eq!(find_group("nogroup", GROUPS), None);
    }
}
