//! What is read, what is refused, and by which name.

use std::collections::BTreeSet;

use super::read::KEYS;
use super::*;

const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
/// The key of RFC 8032's second test.
const OTHER_ID: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

/// A node with these relays.
fn relays(list: &str) -> String {
    format!("node_name = \"n1\"\n[net]\nrelay_urls = [{list}]")
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
}

#[test]
fn fuzz_config() {
    let target =
        blixard_hostile::Target::new("config").valid(full()).valid("node_name = \"n1\"\n").heap_max(16 << 20);
    let words = [
        "[members.",
        "addresses = [",
        "\"127.0.0.1:1\"",
        "port = ",
        "\n",
        "[vms]",
        "=",
        "\"\"\"",
        "\\u0000",
        ".",
        ID,
    ];
    target.words(words).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return "no text".to_owned() };
        match parse(text) {
            Ok(config) => {
                assert!(config.data_dir.is_absolute() && config.socket.is_absolute() && config.port != 0);
                format!("valid with {} members", "x".repeat(config.declared().len().min(16)))
            }
            Err(why) => why,
        }
    });
}

#[test]
fn an_own_address_at_another_port_is_warned_of_with_its_key_and_is_valid() {
    let warning = |head: &str, own: &str| {
        let list = format!(
            "[members.n1]\nendpoint_id = \"{ID}\"\naddresses = [{own}]\n\
             [members.n2]\nendpoint_id = \"{OTHER_ID}\"\naddresses = [\"10.77.0.2:7600\"]\n"
        );
        parse(&format!("node_name = \"n1\"\n{head}\n{list}")).expect("valid").port_warning()
    };
    let own = "\"10.77.0.1:7431\"";
    assert_eq!(warning("", own), None);
    let said = warning("port = 7500", own).expect("warns");
    assert!(said.starts_with("members.n1.addresses: 10.77.0.1:7431 is not at port 7500"), "{said}");
    assert_eq!(warning("port = 7500\nadvertise_addresses = [\"10.77.0.1:7500\"]", own), None, "what counts");
    let said = warning("advertise_addresses = [\"10.77.0.1:7500\"]", own).expect("warns");
    assert!(said.starts_with("advertise_addresses: 10.77.0.1:7500 is not at port 7431"), "{said}");
    let alone = parse("node_name = \"n1\"\nport = 7500").expect("valid");
    assert_eq!(alone.port_warning(), None);
}

fn full() -> String {
    format!(
        r#"
        node_name = "n1"
        cluster_name = "lab"
        data_dir = "/d"
        key_file = "/k"
        listen_address = "127.0.0.1"
        port = 1
        socket = "/s"
        advertise_addresses = ["127.0.0.1:1"]
        role = "witness"
        last_resort = "reboot"
        voter_lost_after_s = 60
        hold_s = 60
        [net]
        relay_urls = ["https://relay.example.org"]
        relay_ca_file = "/ca"
        [vms]
        accel = "tcg"
        qemu = "qemu"
        disk_dirs = ["/disks", {{ path = "/mnt/all", shared = true }}]
        [resources]
        cpus = 3
        memory_mib = 4
        reserve_memory_mib = 5
        [members.n1]
        endpoint_id = "{ID}"
        addresses = ["127.0.0.1:7431"]
        "#
    )
}

#[test]
fn every_key_is_read_and_every_read_key_is_listed() {
    let config = parse(&full()).expect("valid");
    assert_eq!(config.capacity().expect("given"), Capacity { cpus: 3, memory_mib: 4 });
    let table: toml::Table = full().parse().expect("toml");
    let listed = |name: &str| KEYS.iter().find(|(table, _)| *table == name).expect("listed").1.to_vec();
    let keys = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
    let wanted = |name: &str| listed(name).iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    // A node on a list joins with no ticket.
    let joining = "node_name = \"n1\"\njoin = true\njoin_ticket_file = \"/t\"\n";
    assert!(parse(joining).expect("valid").joins());
    let joining: toml::Table = joining.parse().expect("toml");
    assert_eq!(&keys(&table) | &keys(&joining), wanted(""));
    assert_eq!(keys(table["net"].as_table().expect("table")), wanted("net"));
    assert_eq!(keys(table["vms"].as_table().expect("table")), wanted("vms"));
    assert_eq!(keys(table["resources"].as_table().expect("table")), wanted("resources"));
    assert_eq!(keys(table["members"]["n1"].as_table().expect("table")), wanted("members.*"));
}

#[test]
fn who_joins_is_on_no_list_and_a_lost_voter_is_missed_for_some_seconds() {
    let refused = |text: &str, why: &str| {
        let said = parse(text).expect_err(why);
        assert!(said.contains(why), "{said}");
    };
    let listed = full();
    refused(&format!("join = true\n{listed}"), "leave one of the two out");
    refused("node_name = \"n1\"\nvoter_lost_after_s = 4\n", "voter_lost_after_s: 4 is less than 5");
    refused("node_name = \"n1\"\nhold_s = 3601\n", "hold_s: 3601 is more than 3600");
    refused("node_name = \"n1\"\nrole = \"voter\"\n", "witness");
}

#[test]
fn a_name_is_enough_for_a_cluster_of_one() {
    let config = parse("node_name = \"n1\"").expect("valid");
    assert!(config.declared().is_empty());
    assert_eq!(config.listen().to_string(), "0.0.0.0:7431");
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    let cases = [
        ("node_nme = \"n1\"", "`node_nme`: did you mean `node_name`?"),
        ("node_name = \"n1\"\n[vms]\nacel = \"tcg\"", "`vms.acel`: did you mean `accel`?"),
        (
            "node_name = \"n1\"\n[members.n1]\nendpointid = \"x\"",
            "`members.n1.endpointid`: did you mean `endpoint_id`?",
        ),
    ];
    for (text, wanted) in cases {
        let error = parse(text).expect_err("unknown");
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn values_that_can_not_be_are_refused_by_name() {
    let two = format!(
        "node_name = \"n1\"\n[members.n1]\nendpoint_id = \"{ID}\"\naddresses = [\"127.0.0.1:1\"]\n\
         [members.n2]\n"
    );
    let cases = [
        ("node_name = \"N1\"".to_owned(), "node name"),
        ("node_name = \"n1\"\nport = 0".to_owned(), "port"),
        ("node_name = \"n1\"\nport = 70000".to_owned(), "port"),
        ("node_name = \"n1\"\ndata_dir = \"x\"".to_owned(), "data_dir"),
        ("node_name = \"n1\"\n[vms]\ndisk_dirs = [\"x\"]".to_owned(), "vms.disk_dirs"),
        ("node_name = \"n1\"\n[vms]\naccel = \"magic\"".to_owned(), "accel"),
        (disk_dirs("{ path = \"x\", shared = true }"), "vms.disk_dirs: x is not an absolute path"),
        (disk_dirs("{ path = \"/x/\", shared = true }"), "vms.disk_dirs: /x/ is not a plain path"),
        (disk_dirs(&"{ path = \"/x\", shared = true },".repeat(2)), "vms.disk_dirs: /x is listed twice"),
        (disk_dirs("{ path = \"/x\", share = true }"), "a path, or { path = "),
        (disk_dirs("{ shared = true }"), "a path, or { path = "),
        (relays("\"relay.example.org\""), "is not a relay url"),
        (relays("\"https://a\", \"https://a/\""), "net.relay_urls: https://a/ is there twice"),
        (relays("\"http://relay.example.org\""), "without TLS"),
        (relays("\"https://a\"") + "\nrelay_ca_file = \"x\"", "net.relay_ca_file: x is not"),
        (relays("") + "\nrelay_ca_file = \"/x\"", "there is no relay to vouch for"),
        (format!("{two}endpoint_id = \"{ID}\"\naddresses = [\"127.0.0.1:2\"]"), "07511a is n2's as well"),
    ];
    for (text, wanted) in cases {
        let error = parse(&text).expect_err("invalid");
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

fn disk_dirs(list: &str) -> String {
    format!("node_name = \"n1\"\n[vms]\ndisk_dirs = [{list}]")
}

#[test]
fn a_disk_directory_is_this_nodes_own_unless_it_is_said_to_be_shared() {
    let text = disk_dirs("\"/own/\", { path = \"/all\", shared = true }, { path = \"/mine\" }");
    let config = parse(&text).expect("valid");
    assert_eq!(config.disk_dirs(), ["/own/", "/all", "/mine"]);
    assert_eq!(config.shared_dirs(), ["/all"]);
    let witness = parse(&text.replacen("\n", "\nrole = \"witness\"\n", 1)).expect("valid");
    assert_eq!(witness.shared_dirs(), [""; 0], "no VM runs there");
}

/// A list of n1, which is this node, and n2.
fn two(advertised: &str, first: &str, second: &str) -> Result<Config, String> {
    let text = format!(
        "node_name = \"n1\"\nadvertise_addresses = [{advertised}]\n\
         [members.n1]\nendpoint_id = \"{ID}\"\naddresses = [{first}]\n\
         [members.n2]\nendpoint_id = \"{OTHER_ID}\"\naddresses = [{second}]\n"
    );
    parse(&text)
}

#[test]
fn addresses_that_nobody_could_send_to_are_refused_by_key() {
    let good = "\"10.77.0.1:7431\"";
    let cases = [
        ("", good, "", "members.n2.addresses: no address and no relay"),
        ("", good, good, "members.n1.addresses: 10.77.0.1:7431 is n2's as well"),
        ("", good, "\"10.77.0.2:1\", \"10.77.0.2:1\"", "members.n2.addresses: 10.77.0.2:1 is there twice"),
        ("", good, "\"0.0.0.0:1\"", "members.n2.addresses: 0.0.0.0:1 is the unspecified address"),
        ("", good, "\"[ff02::1]:1\"", "members.n2.addresses: [ff02::1]:1 is a multicast address"),
        ("", good, "\"10.77.0.2:0\"", "members.n2.addresses: 10.77.0.2:0 has port 0"),
        ("", good, "\"127.0.0.2:1\"", "members.n2.addresses: 127.0.0.2:1 (n2) is a loopback address beside"),
        ("\"127.0.0.1:1\"", good, "\"10.77.0.2:1\"", "advertise_addresses: 127.0.0.1:1 (n1) is a loopback"),
        ("\"10.77.0.2:1\"", good, "\"10.77.0.2:1\"", "advertise_addresses: 10.77.0.2:1 is n2's as well"),
    ];
    for (advertised, first, second, wanted) in cases {
        let error = two(advertised, first, second).expect_err(wanted);
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    assert!(two("", good, "\"10.77.0.2:7431\", \"[2001:db8::2]:7431\"").is_ok());
    assert!(two("", "\"127.0.0.1:1\"", "\"127.0.0.2:1\"").is_ok(), "a whole cluster on one machine");
    assert!(two("\"203.0.113.7:1\"", good, "\"10.77.0.2:1\"").is_ok(), "behind another address");
}

#[test]
fn addresses_are_checked_against_what_the_socket_hears() {
    let (four, six) = ("\"10.77.0.1:7431\"", "\"[2001:db8::2]:7431\"");
    let listening = |listen: &str, advertised: &str, first: &str, second: &str| {
        let text = format!(
            "node_name = \"n1\"\nlisten_address = \"{listen}\"\nadvertise_addresses = [{advertised}]\n\
             [members.n1]\nendpoint_id = \"{ID}\"\naddresses = [{first}]\n\
             [members.n2]\nendpoint_id = \"{OTHER_ID}\"\naddresses = [{second}]\n"
        );
        parse(&text)
    };
    for both in ["0.0.0.0", "::"] {
        assert!(listening(both, "", four, six).is_ok() && listening(both, "", six, four).is_ok());
    }
    assert!(listening("10.77.0.1", "", four, &format!("{six}, \"10.77.0.2:7431\"")).is_ok(), "one is enough");
    let cases = [
        ("10.77.0.1", "", four, six, "members.n2.addresses: none of them can be sent to"),
        ("2001:db8::1", "", six, four, "members.n2.addresses: none of them can be sent to"),
        ("10.77.0.1", "", six, "\"10.77.0.2:1\"", "members.n1.addresses: [2001:db8::2]:7431 is not heard"),
        ("10.77.0.1", six, four, "\"10.77.0.2:1\"", "advertise_addresses: [2001:db8::2]:7431 is not heard"),
        ("::", "", four, "\"[fe80::2]:1\"", "members.n2.addresses: fe80::2 is a link-local address"),
        ("::", "", four, "\"[fe80::2%3]:1\"", "members.n2.addresses: fe80::2 is a link-local address"),
        ("::", "", four, "\"[::ffff:10.77.0.2]:1\"", "members.n2.addresses: ::ffff:10.77.0.2 is an IPv4"),
        ("::", "\"[fe80::1]:1\"", four, six, "advertise_addresses: fe80::1 is a link-local address"),
        ("fe80::1", "", four, six, "listen_address: fe80::1 is a link-local address"),
        ("::ffff:10.77.0.1", "", four, six, "write 10.77.0.1"),
    ];
    for (listen, advertised, first, second, wanted) in cases {
        let error = listening(listen, advertised, first, second).expect_err(wanted);
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn a_name_in_the_place_of_an_address_is_refused_with_the_reason_and_the_line() {
    let member = format!("[members.n1]\nendpoint_id = \"{ID}\"\naddresses = [\"10.77.0.1:1\", \"n4:7500\"]");
    let cases = [
        (member, "line 4"),
        ("advertise_addresses = [\"n4:7500\"]".to_owned(), "line 2"),
        ("listen_address = \"n4\"".to_owned(), "line 2"),
    ];
    for (text, line) in cases {
        let error = parse(&format!("node_name = \"n1\"\n{text}")).expect_err("a name");
        assert!(error.contains("names are not looked up") && error.contains(line), "{error}");
    }
    let error = parse("node_name = \"n1\"\nlisten_address = \"10.0.0.1:1\"").expect_err("a port");
    assert!(error.contains("write 10.0.0.1 here, and the port as `port`"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_its_cause_said_once() {
    let error = Config::load(Path::new("/nonexistent/c.toml")).expect_err("no file");
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(chain, "/nonexistent/c.toml cannot be read: No such file or directory (os error 2)");
}

#[test]
fn a_node_alone_advertises_what_it_likes_except_nothing_at_all() {
    let alone = |address| parse(&format!("node_name = \"n1\"\nadvertise_addresses = [\"{address}\"]"));
    assert!(alone("127.0.0.1:1").is_ok());
    assert!(alone("[::]:1").expect_err("nowhere").contains("advertise_addresses: [::]:1"));
    let many = ["10.77.0.1:1"; 9].join("\", \"");
    assert!(alone(&many).expect_err("too many").contains("advertise_addresses: 9 addresses"));
}

#[test]
fn a_list_without_this_node_is_refused_with_the_local_id() {
    let config = parse(&full().replace("members.n1", "members.n2")).expect("a list");
    assert!(config.unlisted().expect("not in it").contains("node_name n1 is not in the list"));
    let local = EndpointId::from_bytes([7; 32]);
    assert!(config.check_own_id(local).expect_err("not in it").contains(&local.to_string()));
}

#[test]
fn authorities_that_can_not_be_read_are_named_at_the_start() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("ca.pem");
    let text = relays("\"https://a\"") + &format!("\nrelay_ca_file = \"{}\"", path.display());
    let config = parse(&text).expect("it is read at the start, not here");
    assert!(format!("{:#}", config.relay_ca().expect_err("missing")).contains("net.relay_ca_file"));
    std::fs::write(&path, "hello").expect("written");
    let error = format!("{:#}", config.relay_ca().expect_err("no certificate"));
    assert!(error.contains("net.relay_ca_file") && error.contains("no certificate"), "{error}");
    assert!(parse(&relays("\"https://a\"")).expect("fine").relay_ca().expect("none").is_none());
}

#[test]
fn another_own_id_is_refused_with_the_local_one() {
    let config = parse(&full()).expect("valid");
    let local = EndpointId::from_bytes([7; 32]);
    let error = config.check_own_id(local).expect_err("differs");
    assert!(error.contains(&local.to_string()), "{error}");
}
