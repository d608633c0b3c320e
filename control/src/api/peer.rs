//! Who may use the API: root, whoever heddle runs as, and the group `heddle`.
//!
//! The socket's mode says so already; the kernel's word on who has connected is checked as well,
//! since a mode is easily changed.

use std::fs;

use tokio::net::UnixStream;

/// A group of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub gid: u32,
    /// Users that have it as a further group.
    pub members: Vec<String>,
}

impl Group {
    /// The group `heddle`, if this host has it in `/etc/group`.
    pub fn of_heddle() -> Option<Self> {
        let text = fs::read_to_string("/etc/group").ok()?;
        Self::named("heddle", &text)
    }

    /// The group called `name` in a text in the format of group(5).
    fn named(name: &str, text: &str) -> Option<Self> {
        let fields = entries(text).find(|fields| fields.first() == Some(&name))?;
        let gid = fields.get(2)?.parse().ok()?;
        let members = fields.get(3)?.split(',').filter(|member| !member.is_empty());
        Some(Self { gid, members: members.map(str::to_owned).collect() })
    }
}

/// Whether the client at the other end of `stream` may use the API.
pub(super) fn admits(group: Option<&Group>, stream: &UnixStream) -> bool {
    let Ok(peer) = stream.peer_cred() else { return false };
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() == 0 || peer.uid() == own {
        return true;
    }
    let is_member = |group: &Group| {
        let passwd = || fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = |text: &str| user(peer.uid(), text).is_some_and(|n| group.members.contains(&n));
        peer.gid() == group.gid || named(&passwd())
    };
    let welcome = group.is_some_and(is_member);
    if !welcome {
        tracing::warn!(uid = peer.uid(), gid = peer.gid(), "a stranger wants to use the API");
    }
    welcome
}

/// The name of a user in a text in the format of passwd(5).
fn user(uid: u32, text: &str) -> Option<String> {
    let number = uid.to_string();
    let fields = entries(text).find(|fields| fields.get(2) == Some(&&*number))?;
    fields.first().map(|name| (*name).to_owned())
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_users_are_found() {
        let groups = "root:x:0:\nheddle-x:x:66:\nheddle:x:67:ada,grace\nbroken\n";
        let group = Group::named("heddle", groups).unwrap();
        assert_eq!((group.gid, group.members), (67, vec!["ada".to_owned(), "grace".to_owned()]));
        assert_eq!(Group::named("root", groups).unwrap().members, [""; 0]);
        assert_eq!(Group::named("broken", groups), None);
        let users = "root:x:0:0::/root:/bin/sh\nada:x:257:100::/:/bin/sh\n";
        assert_eq!(user(257, users).as_deref(), Some("ada"));
        assert_eq!(user(25, users), None);
    }
}
