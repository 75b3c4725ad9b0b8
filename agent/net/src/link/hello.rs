//! The first messages on a connection: the dialler says who it is beyond its key, and the other side accepts
//! or closes.
//!
//! Both messages are JSON in one frame, on the connection's first bidirectional stream. A refusal is not an
//! answer but a close with a reason ([`crate::wire::close`]).

use blixard_model::ClusterName;
use serde::{Deserialize, Serialize};

use crate::limits::HELLO_LEN_MAX;
use crate::wire::close::peer_text;

/// Version of all messages after the handshake. The ALPN changes only when the hello itself changes.
const VERSION: u32 = 1;

/// What the dialler says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The version that the dialler speaks.
    pub(crate) version: u32,
    /// The name of the dialler's cluster; any text until it was compared.
    pub(crate) cluster_name: String,
    /// Random id of the dialler's run.
    pub(crate) incarnation: u64,
    /// The number of this attempt, among the dialler's attempts in this run to connect to this peer.
    pub(crate) dial: u64,
    /// The peer's connection that the dialler accepted last, whether it is alive or not. It distinguishes "we
    /// dial each other at the same time" from "I lost the connection that you still believe in".
    pub(crate) accepted: Option<DialId>,
}

/// Identifies one attempt to connect, of one run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DialId {
    pub(crate) incarnation: u64,
    pub(crate) dial: u64,
}

/// What the other side answers when it accepts the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// Random id of the other side's run.
    pub(crate) incarnation: u64,
}

impl Hello {
    pub(crate) fn new(cluster: &ClusterName, id: DialId, accepted: Option<DialId>) -> Self {
        let cluster_name = cluster.as_str().to_owned();
        Self { version: VERSION, cluster_name, incarnation: id.incarnation, dial: id.dial, accepted }
    }

    pub(crate) fn id(&self) -> DialId {
        DialId { incarnation: self.incarnation, dial: self.dial }
    }

    /// Parses a hello, and checks that it has this node's version and cluster name.
    ///
    /// # Errors
    /// The reason to close the connection with. When version or cluster name differ, it names both sides'
    /// values.
    pub(crate) fn parse(bytes: &[u8], cluster: &ClusterName) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct HelloVersion {
            version: u32,
        }
        let malformed = |_| "the hello is malformed".to_owned();
        let HelloVersion { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            return Err(format!(
                "you speak protocol version {version}, this node speaks {VERSION}: upgrade the older node"
            ));
        }
        let hello: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if hello.cluster_name != cluster.as_str() {
            return Err(format!(
                "your cluster_name is {:?}, this node's is {:?}: they must be the same",
                peer_text(hello.cluster_name.as_bytes()),
                cluster.as_str()
            ));
        }
        Ok(hello)
    }
}

/// The JSON form of a hello, a welcome, or the first message of a join.
///
/// # Errors
/// When the JSON does not fit into a frame, which cannot happen with a valid cluster name.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, String> {
    let bytes = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    if bytes.len() <= HELLO_LEN_MAX { Ok(bytes) } else { Err("the hello is too long".to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cluster() -> ClusterName {
        "lab".parse().expect("name")
    }

    fn hello() -> Hello {
        let id = DialId { incarnation: u64::MAX, dial: 2 };
        Hello::new(&cluster(), id, Some(DialId { incarnation: 3, dial: 4 }))
    }

    #[test]
    fn a_hello_round_trips_and_fits_for_the_longest_cluster_name() {
        let bytes = encode(&hello()).expect("fits");
        assert_eq!(Hello::parse(&bytes, &cluster()), Ok(hello()));
        let longest: ClusterName = "a".repeat(64).parse().expect("name");
        assert!(encode(&Hello::new(&longest, hello().id(), hello().accepted)).is_ok());
    }

    #[test]
    fn a_newer_hello_with_more_in_it_is_understood() {
        let text = r#"{"version":1,"cluster_name":"lab","incarnation":1,"dial":1,"accepted":null,"new":[1]}"#;
        assert!(Hello::parse(text.as_bytes(), &cluster()).is_ok());
    }

    #[test]
    fn another_version_or_cluster_is_named() {
        let mut other = hello();
        other.version = 7;
        let why = Hello::parse(&encode(&other).expect("fits"), &cluster()).expect_err("version");
        assert!(why.contains('7') && why.contains("upgrade"), "{why}");
        let mut other = hello();
        other.cluster_name = format!("evil\n\u{1b}[31m{}", "x".repeat(500));
        let why = Hello::parse(&encode(&other).expect("fits"), &cluster()).expect_err("cluster");
        assert!(why.contains("evil") && why.contains("\"lab\""), "{why}");
        assert!(why.len() < 400 && !why.chars().any(char::is_control), "{why:?}");
    }

    #[test]
    fn fuzz_net_hello() {
        let target = blixard_hostile::Target::new("net-hello").len_max(HELLO_LEN_MAX).heap_max(256 << 10);
        let welcome = encode(&Welcome { incarnation: 7 }).expect("fits");
        let target = target.valid(encode(&hello()).expect("fits")).valid(welcome);
        target.words(["\"version\":", "\"cluster_name\":", "\"dial\":", "null", "{", "}", "\\u0000"]).run(
            |bytes| {
                let shown = peer_text(bytes);
                assert!(shown.chars().count() <= 200 && !shown.chars().any(char::is_control));
                let welcome = serde_json::from_slice::<Welcome>(bytes).is_ok();
                match Hello::parse(bytes, &cluster()) {
                    Ok(hello) => assert_eq!(hello.cluster_name, "lab"),
                    Err(why) if why.chars().any(char::is_control) => panic!("{why:?}"),
                    Err(why) => return format!("{welcome} {why}"),
                }
                "hello".to_owned()
            },
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..HELLO_LEN_MAX)) {
            let _ = Hello::parse(&bytes, &cluster());
            let shown = peer_text(&bytes);
            prop_assert!(shown.chars().count() <= 200 && !shown.chars().any(char::is_control));
        }
    }
}
