//! The ticket on disk: where it is kept until the store is bound, so that a crash anywhere resumes.

use std::io;
use std::path::Path;

use blixard_model::{JoinTicket, TicketId};
use blixard_net::ticket;

use super::config::Config;

/// The kept ticket in the data directory.
const FILE_NAME: &str = "join.ticket";

/// The kept ticket, else the configured one, or why it cannot be read; none when there is none.
pub(crate) fn read(config: &Config) -> Option<Result<JoinTicket, String>> {
    let kept = config.data_dir.join(FILE_NAME);
    let path = if kept.exists() { &kept } else { config.join_ticket_file.as_ref()? };
    Some(read_file(path).map_err(|why| format!("{}: {why}", path.display())))
}

fn read_file(path: &Path) -> Result<JoinTicket, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    ticket::decode(&text).map_err(|error| error.to_string())
}

/// Keeps a ticket: only this node's user may read it.
///
/// # Errors
/// The disk's.
pub(crate) fn keep(data_dir: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = data_dir.join(format!("{FILE_NAME}.new"));
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.trim().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, data_dir.join(FILE_NAME))?;
    std::fs::File::open(data_dir)?.sync_all()
}

/// Forgets the kept ticket: it has been used, or is of no use. With an id only if it is that one: another may
/// have taken its place.
pub(crate) fn forget(data_dir: &Path, of: Option<TicketId>) {
    let path = data_dir.join(FILE_NAME);
    let is_another = |of| read_file(&path).is_ok_and(|kept| kept.id != of);
    if of.is_some_and(is_another) {
        return;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{} cannot be removed: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use blixard_model::Contact;
    use blixard_model::{ClusterId, TicketSecret};
    use blixard_net::NodeKey;

    use super::*;

    fn ticket(n: u8) -> JoinTicket {
        JoinTicket {
            cluster_id: ClusterId::from_bytes([n; 16]),
            id: TicketId::from_bytes([n; 8]),
            secret: TicketSecret::from_bytes([n; 32]),
            contacts: vec![Contact {
                endpoint_id: NodeKey::generate().endpoint_id(),
                addresses: vec!["192.0.2.1:7431".parse().expect("address")],
                relay_url: None,
            }],
        }
    }

    fn config(dir: &Path) -> Config {
        let path = dir.join("config.toml");
        let text = format!(
            "node_name = \"n1\"\ndata_dir = {dir:?}\njoin = true\njoin_ticket_file = {:?}\n",
            dir.join("given.ticket")
        );
        std::fs::write(&path, text).expect("written");
        Config::load(&path).expect("valid")
    }

    #[test]
    fn a_configured_ticket_is_found_when_it_is_put_there_and_a_kept_one_comes_first() {
        let dir = tempfile::tempdir().expect("dir");
        let config = config(dir.path());
        let given = dir.path().join("given.ticket");
        let why = read(&config).expect("configured").expect_err("missing");
        assert!(why.contains("given.ticket"), "{why}");
        let (first, second) = (ticket(1), ticket(2));
        std::fs::write(&given, ticket::encode(&first)).expect("written");
        assert_eq!(read(&config), Some(Ok(first)));
        keep(dir.path(), &ticket::encode(&second)).expect("kept");
        assert_eq!(read(&config), Some(Ok(second)));
    }

    #[test]
    fn a_refused_ticket_goes_and_one_that_took_its_place_stays() {
        let dir = tempfile::tempdir().expect("dir");
        let config = config(dir.path());
        let kept = ticket(2);
        keep(dir.path(), &ticket::encode(&kept)).expect("kept");
        forget(dir.path(), Some(ticket(1).id));
        assert_eq!(read(&config), Some(Ok(kept.clone())));
        forget(dir.path(), Some(kept.id));
        assert!(!dir.path().join(FILE_NAME).exists());
        keep(dir.path(), "no ticket").expect("kept");
        forget(dir.path(), None);
        assert!(!dir.path().join(FILE_NAME).exists());
    }
}
