//! From flags and a file to a checked `VmSpec`. Pure: the file's text is an input.

use blixard_model::command::Refusal;
use blixard_model::id::{NodeName, VmName};
use blixard_model::stop::RestartPolicy;
use blixard_model::vm::{Disk, Hypervisor, OnNodeLoss, VmSpec};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::completion::node_names;
use crate::failure::Failure;

/// Virtual cpus of a VM that does not say.
const DEFAULT_CPUS: u32 = 1;
/// Guest memory of a VM that does not say, in MiB.
const DEFAULT_MEMORY_MIB: u64 = 256;
const WAY_OUT_FILE: &str = "a spec is one JSON object, for example the \"spec\" of `vm show --json`";

/// The fields of a spec beside the name, as flags. Paths name files of the node that the VM runs on.
#[derive(Debug, Default, Args)]
pub(crate) struct SpecFlags {
    /// Virtual cpus
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Guest memory in MiB
    #[arg(long, value_name = "N")]
    memory_mib: Option<u64>,
    /// The kernel image, a path on the node
    #[arg(long, value_name = "PATH")]
    kernel: Option<String>,
    /// The initramfs, a path on the node
    #[arg(long, value_name = "PATH")]
    initrd: Option<String>,
    /// Words added to the kernel's command line, in place of those that are there
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// A raw disk image under one of the node's disk directories, in place of all that are there; ':ro' makes
    /// it read-only. May be repeated
    #[arg(long = "disk", value_name = "PATH[:ro]", value_parser = parse_disk)]
    disks: Option<Vec<Disk>>,
    /// Pins the VM to this node: the one that it is placed on
    #[arg(long, value_name = "NODE", add = node_names())]
    node: Option<NodeName>,
    /// What becomes of the VM when its node is lost
    #[arg(long, value_name = "keep|failover", value_parser = on_node_loss())]
    on_node_loss: Option<OnNodeLoss>,
    /// Whether the VM is started again when it ends by itself
    #[arg(long, value_name = "always|on-failure|never", value_parser = restart())]
    restart: Option<RestartPolicy>,
}

/// A field that a spec can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unset {
    /// No initramfs.
    Initrd,
    /// No words added to the kernel's command line.
    Cmdline,
    /// No disks.
    Disks,
    /// Pinned to no node.
    Node,
}

impl SpecFlags {
    /// Whether none is given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { cpus, memory_mib, kernel, initrd, cmdline, disks, node, on_node_loss, restart } = self;
        let no_texts = [kernel, initrd, cmdline].iter().all(|text| text.is_none());
        let no_places = disks.is_none() && node.is_none() && on_node_loss.is_none();
        let no_places = no_places && restart.is_none();
        no_texts && no_places && cpus.is_none() && memory_mib.is_none()
    }

    /// The spec with these in place of its own.
    ///
    /// # Errors
    /// A usage failure that names the field with a value that cannot be.
    pub(crate) fn change(self, spec: VmSpec, unset: &[Unset]) -> Result<VmSpec, Failure> {
        let VmSpec { name, cpus, memory_mib, kernel, initrd, cmdline, disks, .. } = spec;
        let VmSpec { node, hypervisor, on_node_loss, restart, .. } = spec;
        let stays = |field: Unset| !unset.contains(&field);
        checked(VmSpec {
            name,
            cpus: self.cpus.unwrap_or(cpus),
            memory_mib: self.memory_mib.unwrap_or(memory_mib),
            kernel: self.kernel.unwrap_or(kernel),
            initrd: self.initrd.or(initrd.filter(|_| stays(Unset::Initrd))),
            cmdline: self.cmdline.or(Some(cmdline).filter(|_| stays(Unset::Cmdline))).unwrap_or_default(),
            disks: self.disks.or(Some(disks).filter(|_| stays(Unset::Disks))).unwrap_or_default(),
            node: self.node.or(node.filter(|_| stays(Unset::Node))),
            hypervisor,
            on_node_loss: self.on_node_loss.or(on_node_loss),
            restart: self.restart.unwrap_or(restart),
        })
    }
}

/// Its two values, for the help and the completions.
fn on_node_loss() -> impl TypedValueParser<Value = OnNodeLoss> {
    PossibleValuesParser::new(["keep", "failover"]).try_map(|text| text.parse::<OnNodeLoss>())
}

/// Its three values, for the help and the completions.
fn restart() -> impl TypedValueParser<Value = RestartPolicy> {
    PossibleValuesParser::new(RestartPolicy::NAMES).try_map(|text| text.parse::<RestartPolicy>())
}

/// Some fields of a spec, from flags or from a file. Paths name files of the node that the VM will run on.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SpecPatch {
    /// The VM's name: 1 to 48 of a-z, 0-9 and '-', beginning with a letter
    #[arg(value_name = "NAME", required_unless_present = "file")]
    name: Option<VmName>,
    /// Virtual cpus [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Guest memory in MiB [default: 256]
    #[arg(long, value_name = "N")]
    memory_mib: Option<u64>,
    /// The kernel image, a path on the node
    #[arg(long, value_name = "PATH", required_unless_present = "file")]
    kernel: Option<String>,
    /// The initramfs, a path on the node
    #[arg(long, value_name = "PATH")]
    initrd: Option<String>,
    /// Words added to the kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// A raw disk image under one of the node's disk directories; ':ro' makes it read-only. May be repeated
    #[arg(long = "disk", value_name = "PATH[:ro]", value_parser = parse_disk)]
    disks: Option<Vec<Disk>>,
    /// Places the VM on this node and no other
    #[arg(long, value_name = "NODE", add = node_names())]
    node: Option<NodeName>,
    /// The program that runs the VM; qemu is the only one [default: qemu]
    #[arg(long, value_name = "NAME")]
    hypervisor: Option<Hypervisor>,
    /// What becomes of the VM when its node is lost: it stays there (keep), or another node starts it
    /// (failover). Usually failover, but keep with a pin or with a disk that the guest writes and that its
    /// node does not share
    #[arg(long, value_name = "keep|failover", value_parser = on_node_loss())]
    on_node_loss: Option<OnNodeLoss>,
    /// Whether the VM is started again when it ends by itself: always, unless its guest shut down
    /// (on-failure), or never [default: always]
    #[arg(long, value_name = "always|on-failure|never", value_parser = restart())]
    restart: Option<RestartPolicy>,
}

impl SpecPatch {
    /// The fields of this one, and those of `below` where this one has none.
    fn over(self, below: Self) -> Self {
        Self {
            name: self.name.or(below.name),
            cpus: self.cpus.or(below.cpus),
            memory_mib: self.memory_mib.or(below.memory_mib),
            kernel: self.kernel.or(below.kernel),
            initrd: self.initrd.or(below.initrd),
            cmdline: self.cmdline.or(below.cmdline),
            disks: self.disks.or(below.disks),
            node: self.node.or(below.node),
            hypervisor: self.hypervisor.or(below.hypervisor),
            on_node_loss: self.on_node_loss.or(below.on_node_loss),
            restart: self.restart.or(below.restart),
        }
    }

    /// A whole spec, with defaults where there are some.
    fn finish(self) -> Result<VmSpec, Failure> {
        let missing = |field: &str| {
            Failure::usage(format!("the spec has no {field}"), "give it as an argument or in the file")
        };
        Ok(VmSpec {
            name: self.name.ok_or_else(|| missing("name"))?,
            cpus: self.cpus.unwrap_or(DEFAULT_CPUS),
            memory_mib: self.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
            kernel: self.kernel.ok_or_else(|| missing("kernel"))?,
            initrd: self.initrd,
            cmdline: self.cmdline.unwrap_or_default(),
            disks: self.disks.unwrap_or_default(),
            node: self.node,
            hypervisor: self.hypervisor.unwrap_or_default(),
            on_node_loss: self.on_node_loss,
            restart: self.restart.unwrap_or_default(),
        })
    }
}

/// The spec that `flags` ask for, on top of `file`, the text behind `--file`.
///
/// # Errors
/// A usage failure that names the field: a file that is no JSON object, an unknown or missing field, or a
/// value that cannot be.
pub(crate) fn spec_of(flags: SpecPatch, file: Option<&str>) -> Result<VmSpec, Failure> {
    let below = file.map(parse_file).transpose()?.unwrap_or_default();
    checked(flags.over(below).finish()?)
}

fn checked(spec: VmSpec) -> Result<VmSpec, Failure> {
    match spec.validate() {
        Ok(()) => Ok(spec),
        Err(invalid) => {
            let mut failure = Failure::usage(format!("invalid spec: {invalid}"), "");
            failure.refusal = Some(Box::new(Refusal::InvalidSpec(invalid)));
            Err(failure)
        }
    }
}

fn parse_file(text: &str) -> Result<SpecPatch, Failure> {
    // An array would be taken for the fields in their order.
    if text.trim_start().starts_with('[') {
        return Err(Failure::usage("the spec file holds a list instead of one JSON object", WAY_OUT_FILE));
    }
    serde_json::from_str(text)
        .map_err(|error| Failure::usage(format!("the spec file is not understood: {error}"), WAY_OUT_FILE))
}

/// `PATH`, `PATH:ro` or `PATH:rw`; whether the path can be is checked with the rest of the spec.
fn parse_disk(text: &str) -> Result<Disk, String> {
    let (path, read_only) = match text.rsplit_once(':') {
        Some((path, "ro")) => (path, true),
        Some((path, "rw")) => (path, false),
        _ => (text, false),
    };
    if path.is_empty() {
        return Err("the path is missing: write PATH or PATH:ro".to_owned());
    }
    Ok(Disk { path: path.to_owned(), read_only })
}

#[cfg(test)]
mod tests {
    use blixard_model::api::ErrorKind;

    use super::*;

    fn flags() -> SpecPatch {
        SpecPatch {
            name: Some("web".parse().expect("name")),
            kernel: Some("/boot/vmlinux".into()),
            ..SpecPatch::default()
        }
    }

    #[test]
    fn a_disk_is_a_path_with_an_optional_mode() {
        let disk = |path: &str, read_only| Ok(Disk { path: path.to_owned(), read_only });
        assert_eq!(parse_disk("/d/a.raw"), disk("/d/a.raw", false));
        assert_eq!(parse_disk("/d/a.raw:ro"), disk("/d/a.raw", true));
        assert_eq!(parse_disk("/d/a.raw:rw"), disk("/d/a.raw", false));
        assert_eq!(parse_disk("/d/a:b"), disk("/d/a:b", false));
        assert!(parse_disk(":ro").is_err());
        assert!(parse_disk("").is_err());
    }

    #[test]
    fn a_name_and_a_kernel_are_enough() {
        let spec = spec_of(flags(), None).expect("spec");
        assert_eq!(
            (spec.name.as_str(), spec.cpus, spec.memory_mib, spec.kernel.as_str()),
            ("web", 1, 256, "/boot/vmlinux")
        );
        assert_eq!((spec.initrd, spec.node, spec.hypervisor), (None, None, Hypervisor::Qemu));
    }

    #[test]
    fn every_flag_lands_in_its_field() {
        let disk = Disk { path: "/d/a.raw".into(), read_only: true };
        let all = SpecPatch {
            cpus: Some(2),
            memory_mib: Some(512),
            initrd: Some("/boot/initrd".into()),
            cmdline: Some("quiet".into()),
            disks: Some(vec![disk.clone()]),
            node: Some("n2".parse().expect("name")),
            hypervisor: Some(Hypervisor::Qemu),
            on_node_loss: Some(OnNodeLoss::Keep),
            restart: Some(RestartPolicy::OnFailure),
            ..flags()
        };
        let spec = spec_of(all, None).expect("spec");
        assert_eq!((spec.on_node_loss, spec.restart), (Some(OnNodeLoss::Keep), RestartPolicy::OnFailure));
        assert_eq!((spec.cpus, spec.memory_mib, spec.cmdline.as_str()), (2, 512, "quiet"));
        assert_eq!(spec.initrd.as_deref(), Some("/boot/initrd"));
        assert_eq!((spec.disks, spec.node), (vec![disk], Some("n2".parse().expect("name"))));
    }

    #[test]
    fn a_change_takes_the_flags_and_leaves_the_rest() {
        let spec = || crate::sample::vm("web").spec;
        assert!(SpecFlags::default().is_empty());
        assert_eq!(SpecFlags::default().change(spec(), &[]), Ok(spec()));
        let flags =
            SpecFlags { memory_mib: Some(512), cmdline: Some("quiet".into()), ..SpecFlags::default() };
        assert!(!flags.is_empty());
        let changed = flags.change(spec(), &[Unset::Disks, Unset::Cmdline]).expect("a spec");
        let wanted = VmSpec { memory_mib: 512, cmdline: "quiet".into(), disks: Vec::new(), ..spec() };
        assert_eq!(changed, wanted, "a value given wins over its absence");
        let bare = SpecFlags::default();
        let bare = bare.change(wanted, &[Unset::Initrd, Unset::Cmdline, Unset::Node]).expect("a spec");
        assert_eq!((bare.initrd, bare.cmdline.as_str(), bare.node), (None, "", None));
        let failure = SpecFlags { cpus: Some(0), ..SpecFlags::default() }.change(spec(), &[]);
        assert!(failure.is_err_and(|failure| failure.cause.contains("cpus")));
    }

    #[test]
    fn flags_win_over_the_file_and_the_rest_of_the_file_stays() {
        let file = r#"{"name":"db","cpus":4,"memory_mib":1024,"kernel":"/k","cmdline":"ro"}"#;
        let spec = spec_of(SpecPatch { cpus: Some(2), ..flags() }, Some(file)).expect("spec");
        assert_eq!((spec.name.as_str(), spec.cpus, spec.memory_mib), ("web", 2, 1024));
        assert_eq!((spec.kernel.as_str(), spec.cmdline.as_str()), ("/boot/vmlinux", "ro"));
    }

    #[test]
    fn a_file_alone_is_a_spec_and_what_show_prints_is_one() {
        let spec = spec_of(SpecPatch::default(), Some(r#"{"name":"db","kernel":"/k"}"#)).expect("spec");
        assert_eq!((spec.name.as_str(), spec.cpus), ("db", 1));
        let shown = crate::sample::vm("web").spec;
        let text = serde_json::to_string(&shown).expect("JSON");
        assert_eq!(spec_of(SpecPatch::default(), Some(&text)), Ok(shown));
    }

    #[test]
    fn what_cannot_be_is_a_usage_failure_that_names_the_field() {
        let file = |text: &'static str| (SpecPatch::default(), Some(text));
        let cases = [
            (file("[]"), "one JSON object"),
            (file("[\"web\"]"), "one JSON object"),
            (file("{"), "EOF"),
            (file("7"), "invalid type: integer"),
            (file(r#"{"name":"db","kernel":"/k","memroy":1}"#), "memroy"),
            (file(r#"{"name":"db"}"#), "no kernel"),
            (file(r#"{"kernel":"/k"}"#), "no name"),
            (file(r#"{"name":"../x","kernel":"/k"}"#), "VM name"),
            ((SpecPatch { memory_mib: Some(0), ..flags() }, None), "memory_mib"),
            ((SpecPatch { kernel: Some("vmlinux".into()), ..flags() }, None), "kernel"),
        ];
        for ((flags, file), needle) in cases {
            let failure = spec_of(flags, file).expect_err("cannot be");
            assert_eq!(failure.kind, ErrorKind::Usage, "{failure:?}");
            assert!(failure.cause.contains(needle), "{needle}: {failure:?}");
        }
    }

    #[test]
    fn an_invalid_value_carries_the_refusal() {
        let failure = spec_of(SpecPatch { cpus: Some(0), ..flags() }, None).expect_err("no cpus");
        assert!(matches!(failure.refusal.as_deref(), Some(Refusal::InvalidSpec(i)) if i.field == "cpus"));
    }
}
