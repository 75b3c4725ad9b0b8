//! What a VM is asked to be.

use std::fmt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, VmName};
use crate::reason::{FieldProblem, Reason};
use crate::stop::RestartPolicy;

/// Memory that the hypervisor itself may use beside the guest's, in MiB. Reservation and the unit's
/// `MemoryMax` both are guest memory plus this; under TCG it holds the translation cache as well
/// ([`TCG_CACHE_MIB`]).
pub const OVERHEAD_MIB: u64 = 192;
/// QEMU's `tb-size` under TCG, in MiB: part of [`OVERHEAD_MIB`].
pub const TCG_CACHE_MIB: u64 = 64;
/// Most virtual cpus of one VM.
pub const CPUS_MAX: u32 = 64;
/// Least guest memory, in MiB. Small kernels start with this; distributions' kernels may need 128.
pub const MEMORY_MIB_MIN: u64 = 64;
/// Most guest memory, in MiB (1 TiB).
pub const MEMORY_MIB_MAX: u64 = 1 << 20;
/// Most disks of one VM.
pub const DISKS_MAX: usize = 16;
/// Longest path of a kernel, initrd or disk, in bytes.
pub const PATH_LEN_MAX: usize = 1024;
/// Longest kernel command line, in bytes: x86 takes 2047, of which the machine's own words need a part.
pub const CMDLINE_LEN_MAX: usize = 1_800;

/// What the user wants a VM to be. Names files of the node it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Unique in the cluster.
    pub name: VmName,
    /// Virtual cpus.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Absolute path of the kernel image on the node.
    pub kernel: String,
    /// Absolute path of the initramfs on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Kernel command line, after what the hypervisor needs (`console=ttyS0 reboot=t panic=-1`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
    /// Block devices, in the order the guest sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Runs on this node and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The program that runs it.
    #[serde(default)]
    pub hypervisor: Hypervisor,
    /// What becomes of it when its node is lost. None in what is asked for: the cluster chooses by the rest
    /// of the spec ([`VmSpec::usual_on_node_loss`]). None in the log: kept, as by all releases that know
    /// nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_node_loss: Option<OnNodeLoss>,
    /// Whether it is started again where it is placed when it ends by itself. Another than the default needs
    /// version 4 of the cluster.
    #[serde(default, skip_serializing_if = "RestartPolicy::is_default")]
    pub restart: RestartPolicy,
}

/// What becomes of a VM when its node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNodeLoss {
    /// It stays where it is placed and runs on, whatever the other nodes see of its node.
    Keep,
    /// It is started on another node once its own one certainly runs it no more; it runs only while its node
    /// has a lease.
    Failover,
}

impl fmt::Display for OnNodeLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Keep => "keep",
            Self::Failover => "failover",
        })
    }
}

impl std::str::FromStr for OnNodeLoss {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keep" => Ok(Self::Keep),
            "failover" => Ok(Self::Failover),
            other => Err(format!("{other:?} is none of keep and failover")),
        }
    }
}

/// A block device backed by a raw file of the node, under one of its disk directories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Absolute path on the node.
    pub path: String,
    /// The guest cannot write it; several VMs may then share it.
    #[serde(default)]
    pub read_only: bool,
}

/// The program that runs a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hypervisor {
    /// QEMU with the `microvm` machine type.
    #[default]
    Qemu,
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qemu => f.pad("qemu"),
        }
    }
}

impl std::str::FromStr for Hypervisor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "qemu" => Ok(Self::Qemu),
            other => Err(format!("unknown hypervisor {other:?}: this version runs qemu")),
        }
    }
}

/// What executes guest code. A setting of the node, never guessed from `/dev/kvm` (which may exist and not
/// work).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator: slow, runs anywhere.
    Tcg,
}

impl Accel {
    /// Whether it runs guests, which are x86-64, on a machine of this architecture. `arch` is a value of
    /// [`std::env::consts::ARCH`].
    pub fn runs_on(self, arch: &str) -> bool {
        self == Self::Tcg || arch == "x86_64"
    }

    /// What a node uses unless its configuration says otherwise: KVM where it can run the guests. A missing
    /// `/dev/kvm` does not change it: a VM that starts ten times slower than yesterday, without a word,
    /// would be worse than one that says why it does not start.
    pub fn default_on(arch: &str) -> Self {
        if Self::Kvm.runs_on(arch) { Self::Kvm } else { Self::Tcg }
    }
}

/// Whether a VM shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Shall run; started again when it ends, as far as its restart policy says so.
    Running,
    /// Shall be stopped; keeps name, disks and reservation.
    Stopped,
    /// Shall be gone; keeps name, disks and reservation until its node reports the unit gone.
    Absent,
}

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Absent => "absent",
        })
    }
}

/// The right to run a VM on a node. The generation grows with every change of it; an older one is stale.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The node that may run the VM.
    pub node: NodeName,
    /// The log index of the command that made it.
    pub generation: u64,
}

/// For numbers that older releases do not know and that are left out where they say nothing.
pub fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// As [`is_zero`], for shorter ones.
pub fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

/// Which order a unit obeys: that of a placement, by its generation, for a revision of the spec. Two units of
/// one name whose order ids differ are two VMs, as far as anybody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OrderId {
    /// [`Placement::generation`].
    pub generation: u64,
    /// The log index of the command that last changed the spec; 0 while it is as the VM was made with.
    pub revision: u64,
    /// Which cluster wrote the later of the two: 0 for one that was not made of another one's
    /// state.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub lineage: u32,
}

impl OrderId {
    /// Of a cluster that was not made of another one's state.
    pub fn new(generation: u64, revision: u64) -> Self {
        Self { generation, revision, lineage: 0 }
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.generation)?;
        if self.revision != 0 {
            write!(f, ", revision {}", self.revision)?;
        }
        if self.lineage == 0 { Ok(()) } else { write!(f, ", lineage {:08x}", self.lineage) }
    }
}

/// A field of a [`VmSpec`] with a value that is not allowed, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidSpec {
    /// The field, as in the JSON form.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: Reason<FieldProblem>,
}

impl InvalidSpec {
    /// That field with this value.
    pub fn new(field: &str, problem: FieldProblem) -> Self {
        Self { field: field.to_owned(), problem: Reason::Code(problem) }
    }
}

impl VmSpec {
    /// Guest memory plus the stated overhead, in MiB: what a placement reserves and what the unit's
    /// `MemoryMax` allows.
    pub fn reserved_memory_mib(&self) -> u64 {
        self.memory_mib.saturating_add(OVERHEAD_MIB)
    }

    /// Whether another node may take it over.
    pub fn fails_over(&self) -> bool {
        self.on_node_loss == Some(OnNodeLoss::Failover)
    }

    /// The disks that it writes.
    pub fn written_disks(&self) -> impl Iterator<Item = &Disk> {
        self.disks.iter().filter(|disk| !disk.read_only)
    }

    /// What becomes of it unless somebody says otherwise: it is kept if it is bound to its node, by a pin or
    /// by a disk that it writes there and that is not shared.
    pub fn usual_on_node_loss(&self, disks_are_shared: bool) -> OnNodeLoss {
        let is_bound = self.node.is_some() || self.written_disks().next().is_some() && !disks_are_shared;
        if is_bound { OnNodeLoss::Keep } else { OnNodeLoss::Failover }
    }

    /// Checks every field; run at the edge and again on apply.
    ///
    /// # Errors
    /// The first field with a value that is not allowed, and the reason.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        if !(1..=CPUS_MAX).contains(&self.cpus) {
            let (min, max) = (1, CPUS_MAX.into());
            return Err(InvalidSpec::new(
                "cpus",
                FieldProblem::OutOfRange { is: self.cpus.into(), min, max },
            ));
        }
        if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&self.memory_mib) {
            let (is, min, max) = (self.memory_mib, MEMORY_MIB_MIN, MEMORY_MIB_MAX);
            return Err(InvalidSpec::new("memory_mib", FieldProblem::OutOfRange { is, min, max }));
        }
        check_path("kernel", &self.kernel)?;
        if let Some(initrd) = &self.initrd {
            check_path("initrd", initrd)?;
        }
        if self.cmdline.len() > CMDLINE_LEN_MAX {
            let max = CMDLINE_LEN_MAX as u64;
            return Err(InvalidSpec::new("cmdline", FieldProblem::TooLong { max }));
        }
        if self.cmdline.chars().any(char::is_control) {
            return Err(InvalidSpec::new("cmdline", FieldProblem::ControlCharacter));
        }
        if self.disks.len() > DISKS_MAX {
            return Err(InvalidSpec::new("disks", FieldProblem::TooMany { max: DISKS_MAX as u64 }));
        }
        for (i, disk) in self.disks.iter().enumerate() {
            check_path(&format!("disks[{i}].path"), &disk.path)?;
            if self.disks[..i].iter().any(|other| other.path == disk.path) {
                return Err(InvalidSpec::new(&format!("disks[{i}].path"), FieldProblem::ListedTwice));
            }
        }
        self.check_on_node_loss()
    }
}

impl VmSpec {
    fn check_on_node_loss(&self) -> Result<(), InvalidSpec> {
        match &self.node {
            Some(node) if self.fails_over() => {
                let problem = FieldProblem::FailoverOfPinned { node: node.clone() };
                Err(InvalidSpec::new("on_node_loss", problem))
            }
            _ => Ok(()),
        }
    }
}

fn check_path(field: &str, text: &str) -> Result<(), InvalidSpec> {
    check_plain_path(text).map_err(|problem| InvalidSpec::new(field, problem))
}

/// Checks that a path is absolute, normal (no `.`, `..` or doubled slash) and not too long, and holds nothing
/// that an argument list gives a meaning to.
///
/// # Errors
/// What is wrong with it.
pub fn check_plain_path(text: &str) -> Result<(), FieldProblem> {
    let wrong = Err;
    if text.len() > PATH_LEN_MAX {
        return wrong(FieldProblem::TooLong { max: PATH_LEN_MAX as u64 });
    }
    if text.chars().any(char::is_control) {
        return wrong(FieldProblem::ControlCharacter);
    }
    // QEMU splits its option values at commas; rather than escape them we do without.
    if text.contains(',') {
        return wrong(FieldProblem::Comma);
    }
    let path = Path::new(text);
    if !path.is_absolute() {
        return wrong(FieldProblem::NotAbsolute);
    }
    let normal = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !normal || text.contains("//") || text.contains("/./") || text.ends_with("/.") || text.ends_with('/') {
        return wrong(FieldProblem::NotPlain);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            name: "web".parse().expect("name"),
            cpus: 1,
            memory_mib: 256,
            kernel: "/boot/vmlinux".into(),
            initrd: None,
            cmdline: String::new(),
            disks: vec![Disk { path: "/var/lib/blixard-disks/web.raw".into(), read_only: false }],
            node: None,
            hypervisor: Hypervisor::Qemu,
            on_node_loss: None,
            restart: RestartPolicy::Always,
        }
    }

    #[test]
    fn a_plain_spec_is_valid_and_reserves_the_overhead() {
        assert_eq!(spec().validate(), Ok(()));
        assert_eq!(spec().reserved_memory_mib(), 256 + OVERHEAD_MIB);
    }

    #[test]
    fn every_field_is_checked_and_named() {
        type Change = Box<dyn Fn(&mut VmSpec)>;
        let cases: Vec<(&str, Change)> = vec![
            ("cpus", Box::new(|s| s.cpus = 0)),
            ("cpus", Box::new(|s| s.cpus = CPUS_MAX + 1)),
            ("memory_mib", Box::new(|s| s.memory_mib = 1)),
            ("memory_mib", Box::new(|s| s.memory_mib = u64::MAX)),
            ("kernel", Box::new(|s| s.kernel = "vmlinux".into())),
            ("kernel", Box::new(|s| s.kernel = "/boot/../etc/shadow".into())),
            ("kernel", Box::new(|s| s.kernel = "/".into())),
            ("initrd", Box::new(|s| s.initrd = Some("/a,readonly=off".into()))),
            ("cmdline", Box::new(|s| s.cmdline = "a\nb".into())),
            ("cmdline", Box::new(|s| s.cmdline = "x".repeat(CMDLINE_LEN_MAX + 1))),
            ("disks", Box::new(|s| s.disks = vec![s.disks[0].clone(); DISKS_MAX + 1])),
            ("disks[0].path", Box::new(|s| s.disks[0].path = "/a/./b".into())),
            ("disks[1].path", Box::new(|s| s.disks.push(s.disks[0].clone()))),
            (
                "on_node_loss",
                Box::new(|s| {
                    s.disks.clear();
                    s.node = Some("n1".parse().expect("name"));
                    s.on_node_loss = Some(OnNodeLoss::Failover);
                }),
            ),
        ];
        for (field, change) in cases {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(spec.validate().map_err(|e| e.field), Err(field.to_owned()));
        }
    }

    #[test]
    fn what_is_bound_to_its_node_is_kept_unless_somebody_says_otherwise() {
        let mut spec = spec();
        assert_eq!(spec.usual_on_node_loss(false), OnNodeLoss::Keep, "it writes a disk there");
        assert_eq!(spec.usual_on_node_loss(true), OnNodeLoss::Failover, "other nodes have it as well");
        spec.disks[0].read_only = true;
        assert_eq!(spec.usual_on_node_loss(false), OnNodeLoss::Failover);
        spec.on_node_loss = Some(OnNodeLoss::Failover);
        assert_eq!((spec.validate(), spec.fails_over()), (Ok(()), true));
        spec.node = Some("n1".parse().expect("name"));
        assert_eq!(spec.usual_on_node_loss(true), OnNodeLoss::Keep, "it is pinned");
        spec.on_node_loss = Some(OnNodeLoss::Keep);
        assert_eq!((spec.validate(), spec.fails_over()), (Ok(()), false));
        for choice in [OnNodeLoss::Keep, OnNodeLoss::Failover] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = r#"{"name":"a","cpus":1,"memory_mib":64,"kernel":"/k","memroy":1}"#;
        assert!(serde_json::from_str::<VmSpec>(text).is_err());
    }
}
