//! What the answers have to be. Collects what does not hold; asks nix nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::expressions::REFUSALS;
use crate::stories::{Cast, Part, Story};

/// How many facts were checked, and those that did not hold.
#[derive(Default)]
pub(super) struct Checks {
    looked_at: usize,
    wrong: Vec<String>,
}

impl Checks {
    /// The example node: the package's units with drop-ins, and everything around them.
    pub(super) fn example(&mut self, node: &Value) {
        self.is("both units are drop-ins", &node["strategies"], &json!(["asDropin", "asDropin"]));
        let agent = &node["agent"];
        self.drop_in("blixard.service", agent);
        self.line("blixard.service", agent, "LoadCredential=node.key:/var/lib/blixard-keys/node.key");
        self.line("blixard.service", agent, "SetCredential=node.key:missing:/var/lib/blixard-keys/node.key");
        self.line("blixard.service", agent, "WantedBy=multi-user.target");
        self.line("blixard.service", agent, "X-StopIfChanged=false");
        self.that(
            "blixard.service is restarted when its configuration changes",
            has(agent, "X-Restart-Triggers="),
        );
        let vm = &node["vm"];
        self.drop_in("blixard-vm@.service", vm);
        self.line("blixard-vm@.service", vm, "X-RestartIfChanged=false");
        self.that("VMs are stopped when the template goes", !has(vm, "X-StopOnRemoval="));
        self.that("nothing wants blixard-vm@.service", !has(vm, "WantedBy=") && !has(vm, "RequiredBy="));

        self.is("UDP ports", &node["udp"], &json!([7431]));
        self.is("TCP ports", &node["tcp"], &json!([]));
        self.is("polkit", &node["polkit"], &json!(true));
        let linked = json!("/share/polkit-1");
        self.that("polkit finds the package's rule", list(&node["linked"]).contains(&linked));
        self.is(
            "package is used",
            &node["carried"],
            &json!({"units": true, "system": true, "tmpfiles": true}),
        );
        self.is("user is a system user", &node["user"]["isSystemUser"], &json!(true));
        self.is("user's group", &node["user"]["group"], &json!("blixard"));

        let config = &node["config"];
        self.is("node_name is the host name", &config["node_name"], &json!("n1"));
        self.is("cluster_name", &config["cluster_name"], &json!("lab"));
        self.is("resources", &config["resources"], &json!({"memory_mib": 2048, "reserve_memory_mib": 512}));
        let n2 = json!({
            "endpoint_id": "66a1549e165e0dedee22af291c2360c49458d866be52be28b87d7a6533a57719",
            "addresses": ["10.77.0.2:7431"],
        });
        self.is("members.n2", &config["members"]["n2"], &n2);
        self.is("number of members", &json!(config["members"].as_object().map(Map::len)), &json!(3));
        let qemu = config["vms"]["qemu"].as_str().unwrap_or_default();
        self.that(
            "qemu is one of the store",
            qemu.starts_with('/') && qemu.ends_with("/bin/qemu-system-x86_64"),
        );
        let key = json!("/run/credentials/blixard.service/node.key");
        self.is("key_file is the credential", &config["key_file"], &key);
        self.that("no ticket, no join_ticket_file", config.get("join_ticket_file").is_none());
    }

    /// Compares the files of agent/dist with what the module and the package make of them.
    pub(super) fn dist_files(&mut self, root: &Path, node: &Value) -> Result<()> {
        let dist = root.join("agent/dist");
        let installs = node["installs"].as_str().unwrap_or_default();
        for entry in fs::read_dir(&dist).with_context(|| format!("reading {}", dist.display()))? {
            let directory = entry?.path();
            for file in
                fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?
            {
                let file = file?.path();
                let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
                let pattern = file.extension().map_or_else(
                    || name.clone(),
                    |extension| {
                        let parent = Path::new(&name).parent().unwrap_or(Path::new(""));
                        format!("{}/*.{}", parent.display(), extension.to_string_lossy())
                    },
                );
                self.that(&format!("the package installs {name}"), installs.contains(&pattern));
                if name.ends_with(".service") {
                    let text = fs::read_to_string(&file).with_context(|| format!("reading {name}"))?;
                    self.that(&format!("{name} names /usr/bin/blixard"), text.contains("=/usr/bin/blixard "));
                }
            }
        }
        let sysusers = dist.join("sysusers/blixard.conf");
        let text =
            fs::read_to_string(&sysusers).with_context(|| format!("reading {}", sysusers.display()))?;
        self.users(&text, node);
        Ok(())
    }

    /// NixOS declares the users of the sysusers file a second time: both declarations have to agree.
    fn users(&mut self, sysusers: &str, node: &Value) {
        for line in sysusers.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["g", group, ..] => {
                    self.that(
                        &format!("sysusers' group {group}"),
                        list(&node["groups"]).contains(&json!(group)),
                    );
                }
                ["u", "blixard", .., home] => self.is("sysusers' home", &node["user"]["home"], &json!(home)),
                ["m", "blixard", group] => {
                    let member = list(&node["user"]["extraGroups"]).contains(&json!(group));
                    self.that(&format!("sysusers' membership in {group}"), member);
                }
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                _ => self
                    .wrong
                    .push(format!("agent/dist/sysusers/blixard.conf: users.nix has nothing for `{line}`")),
            }
        }
    }

    /// A node whose settings are as far from the defaults as possible.
    pub(super) fn otherwise(&mut self, node: &Value) {
        self.is("a node alone, as assertions see it", &node["complaints"], &json!([]));
        let agent = &node["agent"];
        self.that("no key file, no credential", !has(agent, "LoadCredential=node.key"));
        self.that("no key file, nothing in its place", !has(agent, "SetCredential=node.key"));
        self.line("blixard.service", agent, "LoadCredential=join.ticket:/run/secrets/50%%.ticket");
        self.line("blixard.service", agent, "SetCredential=join.ticket:removed");
        self.directories(node);
        self.is("closed firewall", &node["udp"], &json!([]));
        let config = &node["config"];
        self.is("node_name", &config["node_name"], &json!("lonely"));
        self.is("port", &config["port"], &json!(7531));
        let advertised = json!(["203.0.113.7:7531", "[2001:db8::7]:7531"]);
        self.is("advertise_addresses", &config["advertise_addresses"], &advertised);
        self.is("no members", &config["members"], &json!({}));
        let ticket = json!("/run/credentials/blixard.service/join.ticket");
        self.is("join_ticket_file", &config["join_ticket_file"], &ticket);
        self.is("role", &config["role"], &json!("witness"));
        self.is("voter_lost_after_s", &config["voter_lost_after_s"], &json!(30));
        self.is("hold_s", &config["hold_s"], &json!(30));
        self.is("qemu", &config["vms"]["qemu"], &json!("/opt/qemu"));
        self.is("accel", &config["vms"]["accel"], &json!("tcg"));
        let dirs = json!(["/var/lib/blixard-disks", { "path": "/mnt/vms/disks", "shared": true }]);
        self.is("last_resort", &config["last_resort"], &json!("reboot"));
        let last_resort = &node["last_resort"];
        self.drop_in("blixard-last-resort.service", last_resort);
        self.line("blixard-last-resort.service", last_resort, "WantedBy=multi-user.target");
        self.is("disk_dirs", &config["vms"]["disk_dirs"], &dirs);
    }

    /// The directories of `otherwise`, on file systems that are mounted late: everything waits for these, and
    /// nothing is created before they are mounted.
    fn directories(&mut self, node: &Value) {
        let (agent, vm, directories) = (&node["agent"], &node["vm"], &node["directories"]);
        for line in [
            "ReadWritePaths=/srv/blixard",
            "RequiresMountsFor=/srv/blixard",
            "Requires=blixard-directory-srv-blixard.service",
            "After=blixard-directory-srv-blixard.service",
            "WantedBy=multi-user.target srv.mount",
        ] {
            self.line("blixard.service", agent, line);
        }
        let made = r"blixard-directory-mnt-vms-disks.service";
        for line in ["ReadWritePaths=/mnt/vms/disks", "RequiresMountsFor=/mnt/vms/disks"] {
            self.line("blixard-vm@.service", vm, line);
        }
        for key in ["Wants=", "After="] {
            let found = lines(vm).any(|line| line.starts_with(key) && line.contains(made));
            self.that(&format!("blixard-vm@.service has {key}{made}"), found);
        }
        self.that("a changed directory does not reach a running VM", !has(vm, "Requires="));
        for (name, wanted_by, mounts_for, text) in [
            ("data", " srv.mount", "/srv/blixard", "d /srv/blixard :0700 :blixard :blixard"),
            ("disks", " mnt-vms.mount", "/mnt/vms/disks", "d /mnt/vms/disks :3770 :root :blixard-disk"),
            ("own", "", "/var/lib/blixard-disks", "d /var/lib/blixard-disks 3770 root blixard-disk"),
        ] {
            let unit = &directories[name];
            self.line(name, unit, &format!("WantedBy=blixard.service{wanted_by}"));
            self.line(name, unit, &format!("RequiresMountsFor={mounts_for}"));
            self.line(name, unit, &format!("StandardInputText={text}"));
        }
        let others = list(&node["tmpfiles"]).iter().filter_map(Value::as_str);
        let early = others.filter(|name| name.contains("blixard")).count();
        self.that("nothing is made before its file system is mounted", early == 0);
    }

    /// Nodes that differ from the example in one thing.
    pub(super) fn variants(&mut self, nodes: &Value) {
        self.that("a witness has no QEMU", nodes["witness"]["vms"].get("qemu").is_none());
        let arm = &nodes["arm"];
        self.is("aarch64, as assertions see it", &arm["complaints"], &json!([]));
        self.is("accel of aarch64", &arm["config"]["vms"]["accel"], &json!("tcg"));
        self.is("an overlay's package is used", &nodes["overlaid"], &json!(true));
        // The polkit rule and the unit template come and go together: one without the other would be a right
        // without its limits.
        let nothing = json!({"units": false, "system": false, "tmpfiles": false});
        let off = json!({"carried": nothing, "units": [], "user": false});
        self.is("nothing is left of a node that is switched off", &nodes["off"], &off);
        self.is("no warning", &nodes["warnings"]["none"], &json!([]));
        for (option, value) in [("port", "7500"), ("listen_address", "10.77.0.9")] {
            let warning = nodes["warnings"][option][0].as_str().unwrap_or_default();
            let start = format!("services.blixard.settings.{option}: the agent listens on {value}, and");
            let names_both = warning.starts_with(&start)
                && warning.contains("services.blixard.cluster.members.n1.addresses");
            self.that(&format!("{option} that is in no own address is warned of: {warning:?}"), names_both);
        }
        self.is("no warning of what is advertised", &nodes["warnings"]["advertised"], &json!([]));
        let shared = nodes["warnings"]["shared"][0].as_str().unwrap_or_default();
        let start = "users.groups.blixard-disk.gid: nodes share \"/mnt/vms\", ";
        self.that(&format!("a shared group without a number: {shared:?}"), shared.starts_with(start));
        self.is("no warning of one with a number", &nodes["warnings"]["numbered"], &json!([]));
    }

    /// Every story is a VM test, and every VM test a story. Beside them there are two checks.
    pub(super) fn stories(&mut self, stories: &[Story], tests: &Value) {
        let mut wanted: Vec<String> = stories.iter().map(Story::attribute).collect();
        wanted.extend(["blixard", "units"].map(str::to_owned));
        wanted.sort();
        self.is("the package, its units and the VM tests", tests, &json!(wanted));
    }

    /// The machines of a VM test: all have the same list of members, and each has a key of its own.
    pub(super) fn machines(&mut self, story: &str, cast: &Cast, machines: &Value) {
        let names: Vec<&str> =
            machines.as_object().map(|of| of.keys().map(String::as_str).collect()).unwrap_or_default();
        let wanted: Vec<&String> = cast.machines.keys().collect();
        self.is(&format!("machines of {story}"), &json!(names), &json!(wanted));
        let listed: Vec<(usize, &String)> = (1..)
            .zip(&cast.machines)
            .filter(|(_, (_, part))| part.listed)
            .map(|(number, (name, _))| (number, name))
            .collect();
        let members = listed.first().map_or(&Value::Null, |(_, name)| &machines[name]["config"]["members"]);
        let addresses: BTreeMap<&String, Value> = listed
            .iter()
            .map(|(number, name)| (*name, json!([format!("192.168.1.{number}:7431")])))
            .collect();
        let found: BTreeMap<&String, &Value> = members
            .as_object()
            .map(|of| of.iter().map(|(name, member)| (name, &member["addresses"])).collect())
            .unwrap_or_default();
        self.is(&format!("members of {story}, and where they are"), &json!(found), &json!(addresses));
        let mut keys = Vec::new();
        for (name, part) in &cast.machines {
            let machine = &machines[name];
            self.machine(&format!("{story}, {name}"), name, part, machine, members);
            let key = &machine["key"];
            self.that(&format!("{story}, {name}: a key of its own"), !keys.contains(&key));
            keys.push(key);
        }
    }

    fn machine(&mut self, what: &str, name: &str, part: &Part, machine: &Value, members: &Value) {
        let config = &machine["config"];
        self.is(&format!("{what}: failed assertions"), &machine["complaints"], &json!([]));
        self.is(&format!("{what}: node_name"), &config["node_name"], &json!(name));
        let known = if part.listed { members } else { &json!({}) };
        self.is(&format!("{what}: members"), &config["members"], known);
        self.is(&format!("{what}: join"), &config["join"], &json!(!part.listed));
        for (key, value) in part.settings.as_object().into_iter().flatten() {
            self.that(&format!("{what}: {key} is {value}"), includes(&config[key], value));
        }
        self.line(what, &machine["agent"], "LoadCredential=node.key:/etc/blixard-test/node.key");
        for file in ["blixard-guest/vmlinux", "blixard-guest/initrd"] {
            self.that(&format!("{what}: /etc/{file}"), list(&machine["etc"]).contains(&json!(file)));
        }
        let digits = machine["key"].as_str().unwrap_or_default().strip_suffix('\n').unwrap_or_default();
        let is_key = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.that(&format!("{what}: a key of 64 hex digits and a newline"), is_key);
    }

    /// Every mistake has its message, and there is no other message.
    pub(super) fn refused(&mut self, messages: &Value) {
        let messages: Vec<&str> = list(messages).iter().filter_map(Value::as_str).collect();
        for (option, text) in REFUSALS {
            let found = messages.iter().any(|message| message.starts_with(option) && message.contains(text));
            self.that(&format!("refused: {option} {text}"), found);
        }
        for message in &messages {
            let expected =
                REFUSALS.iter().any(|(option, text)| message.starts_with(option) && message.contains(text));
            self.that(&format!("an expected refusal: {message}"), expected);
        }
    }

    /// A failed evaluation has to name what was wrong.
    pub(super) fn fails(&mut self, error: &str, expected: &str) {
        let tail: String = error.lines().rev().take(4).collect::<Vec<_>>().join(" / ");
        self.that(&format!("an error that names {expected}; it says: {tail}"), error.contains(expected));
    }

    /// The agent itself has to accept the rendered configuration.
    pub(super) fn agent_accepts(&mut self, agent: &Path, config: &Value) -> Result<()> {
        let file = std::env::temp_dir().join(format!("blixard-nix-{}.toml", std::process::id()));
        fs::write(&file, toml(config)).with_context(|| format!("writing {}", file.display()))?;
        let output = Command::new(agent)
            .args(["agent", "--check-config", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", agent.display()));
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        let output = output?;
        let said = String::from_utf8_lossy(&output.stderr);
        let what =
            format!("the agent accepts {}'s config.toml; it says: {}", config["node_name"], said.trim());
        self.that(&what, output.status.success());
        Ok(())
    }

    /// The key of a VM test's machine has to belong to the endpoint id in the machine's list of members.
    pub(super) fn agent_knows_key(&mut self, agent: &Path, name: &str, machine: &Value) -> Result<()> {
        let file = std::env::temp_dir().join(format!("blixard-nix-{}.key", std::process::id()));
        fs::write(&file, machine["key"].as_str().unwrap_or_default())
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)))
            .with_context(|| format!("writing {}", file.display()))?;
        let output = Command::new(agent)
            .args(["keygen", "--key-file"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", agent.display()));
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        let said = String::from_utf8_lossy(&output?.stdout).trim().to_owned();
        self.is(
            &format!("{name}: endpoint id"),
            &machine["config"]["members"][name]["endpoint_id"],
            &json!(said),
        );
        Ok(())
    }

    /// Returns how many facts were checked, if all of them held.
    pub(super) fn finish(self) -> Result<usize> {
        ensure!(self.wrong.is_empty(), "not as it has to be:\n- {}", self.wrong.join("\n- "));
        Ok(self.looked_at)
    }

    /// The module may add to the package's unit, but replace nothing in it.
    fn drop_in(&mut self, unit: &str, text: &Value) {
        for key in ["ExecStart=", "ExecStop=", "Type=", "User=", "ProtectSystem=", "Restart="] {
            self.that(&format!("{unit}'s {key} is the package's"), !has(text, key));
        }
    }

    fn line(&mut self, unit: &str, text: &Value, line: &str) {
        let found = lines(text).any(|candidate| candidate == line);
        self.that(&format!("{unit} has {line}"), found);
    }

    fn is(&mut self, what: &str, found: &Value, expected: &Value) {
        self.that(&format!("{what}: {expected}, found {found}"), found == expected);
    }

    fn that(&mut self, what: &str, holds: bool) {
        self.looked_at += 1;
        if !holds {
            self.wrong.push(what.to_owned());
        }
    }
}

/// Whether a line of a unit's text begins with `start`.
fn has(text: &Value, start: &str) -> bool {
    lines(text).any(|line| line.starts_with(start))
}

fn lines(text: &Value) -> impl Iterator<Item = &str> {
    text.as_str().unwrap_or_default().lines()
}

/// Whether `found` holds everything in `wanted`. Tables may hold more.
fn includes(found: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Object(table) => table.iter().all(|(key, value)| includes(&found[key], value)),
        other => found == other,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A configuration as TOML: one line for each key at the top, with tables inline. TOML writes strings and
/// numbers as JSON does.
fn toml(config: &Value) -> String {
    let Some(table) = config.as_object() else { return String::new() };
    table.iter().map(|(key, value)| format!("{key} = {}\n", inline(value))).collect()
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let pairs: Vec<String> =
                table.iter().map(|(key, value)| format!("{} = {}", json!(key), inline(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        simple => simple.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_becomes_one_line_for_each_key_with_tables_inline() {
        let config = json!({"port": 7431, "vms": {"dirs": ["/a", "say \"b\""], "on": true}, "members": {}});
        let expected =
            "members = {  }\nport = 7431\nvms = { \"dirs\" = [\"/a\", \"say \\\"b\\\"\"], \"on\" = true }\n";
        assert_eq!(toml(&config), expected);
    }

    #[test]
    fn what_does_not_hold_is_named_and_what_holds_is_counted() {
        let mut checks = Checks::default();
        checks.line("a.service", &json!("[Unit]\nAfter=x\n"), "After=x");
        assert_eq!(checks.finish().unwrap(), 1);
        let mut checks = Checks::default();
        checks.line("a.service", &json!("[Unit]\nAfter=xy\n"), "After=x");
        checks.is("port", &json!(1), &json!(2));
        let error = checks.finish().unwrap_err().to_string();
        assert_eq!(error, "not as it has to be:\n- a.service has After=x\n- port: 2, found 1");
    }

    #[test]
    fn sysusers_lines_without_a_counterpart_in_the_module_are_wrong() {
        let node = json!({"groups": ["kvm"], "user": {"home": "/var/lib/blixard", "extraGroups": ["disk"]}});
        let mut checks = Checks::default();
        checks.users("# people\ng kvm - -\nu blixard - \"A\" /var/lib/blixard\nm blixard disk\n", &node);
        assert_eq!(checks.finish().unwrap(), 3);
        let mut checks = Checks::default();
        checks.users("g tape - -\nm blixard tape\nr - 500-900\n", &node);
        let error = checks.finish().unwrap_err().to_string();
        assert_eq!(error.lines().count(), 4, "{error}");
    }
}
