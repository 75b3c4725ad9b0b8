//! Who is at the other end of the socket, as the kernel says.

use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist};
use tokio::net::UnixStream;

/// The other process' user and group when it connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerCred {
    ids: Option<(Uid, Gid)>,
}

impl PeerCred {
    /// Who opened this connection.
    pub(crate) fn of(stream: &UnixStream) -> Self {
        let ids = stream.peer_cred().ok();
        Self { ids: ids.map(|cred| (Uid::from_raw(cred.uid()), Gid::from_raw(cred.gid()))) }
    }

    /// Root, the agent's own user, and members of the agent's group may ask. The socket's mode says the same;
    /// this holds too when somebody widened it.
    pub(crate) async fn check(self) -> Result<(), String> {
        let Some((uid, gid)) = self.ids else {
            return Err("the kernel does not say who asks".to_owned());
        };
        let group = getegid();
        if uid.is_root() || uid == geteuid() || gid == group {
            return Ok(());
        }
        // The user database may be far away and slow: not on a thread that others wait for.
        let looked_up = tokio::task::spawn_blocking(move || is_member(uid, gid, group)).await;
        if looked_up.unwrap_or(false) {
            return Ok(());
        }
        Err(format!("user {uid} is neither root nor in the agent's group: add it to group blixard"))
    }
}

fn is_member(uid: Uid, gid: Gid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return false };
    getgrouplist(&name, gid).is_ok_and(|groups| groups.contains(&group))
}
