//! From flags and a file to a checked `VmSpec`. Pure: the file's text is an input.

use blixard_model::command::Refusal;
use blixard_model::vm::VmSpec;
use serde_json::{Map, Value, json};

use super::args::SpecArgs;
use super::failure::Failure;

/// Cpus of a VM that does not say.
const DEFAULT_CPUS: u32 = 1;
/// Guest memory of a VM that does not say, in MiB.
const DEFAULT_MEMORY_MIB: u64 = 256;

/// The spec that `args` ask for, on top of `file`, the text behind `--file`.
///
/// # Errors
/// A usage failure that names the field: a file that is no JSON object, an unknown or missing field, or a
/// value that can not be.
pub(crate) fn spec_of(args: &SpecArgs, file: Option<&str>) -> Result<VmSpec, Failure> {
    let mut fields = match file {
        Some(text) => parse_file(text)?,
        None => Map::new(),
    };
    for (field, value) in flags(args) {
        fields.insert(field.to_owned(), value);
    }
    fields.entry("cpus").or_insert(json!(DEFAULT_CPUS));
    fields.entry("memory_mib").or_insert(json!(DEFAULT_MEMORY_MIB));
    let spec: VmSpec = serde_json::from_value(Value::Object(fields)).map_err(|error| {
        Failure::usage(format!("the spec can not be: {error}"), "the fields are those of `vm run --help`")
    })?;
    match spec.validate() {
        Ok(()) => Ok(spec),
        Err(invalid) => {
            let mut failure = Failure::usage(format!("invalid spec: {invalid}"), "");
            failure.refusal = Some(Box::new(Refusal::InvalidSpec(invalid)));
            Err(failure)
        }
    }
}

fn parse_file(text: &str) -> Result<Map<String, Value>, Failure> {
    let way_out = "a spec is one JSON object, for example the \"spec\" of `vm show --json`";
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Failure::usage("the spec file holds something else than a JSON object", way_out)),
        Err(error) => Err(Failure::usage(format!("the spec file is not JSON: {error}"), way_out)),
    }
}

/// The fields that flags set, by their names in the JSON form.
fn flags(args: &SpecArgs) -> Vec<(&'static str, Value)> {
    let SpecArgs { name, file: _, cpus, memory_mib, kernel, initrd, cmdline, disks, node, hypervisor } = args;
    let disks = (!disks.is_empty()).then_some(disks);
    [
        ("name", name.as_ref().map(|name| json!(name))),
        ("cpus", cpus.map(|cpus| json!(cpus))),
        ("memory_mib", memory_mib.map(|mib| json!(mib))),
        ("kernel", kernel.as_ref().map(|path| json!(path))),
        ("initrd", initrd.as_ref().map(|path| json!(path))),
        ("cmdline", cmdline.as_ref().map(|words| json!(words))),
        ("disks", disks.map(|disks| json!(disks))),
        ("node", node.as_ref().map(|node| json!(node))),
        ("hypervisor", hypervisor.map(|hypervisor| json!(hypervisor))),
    ]
    .into_iter()
    .filter_map(|(field, value)| value.map(|value| (field, value)))
    .collect()
}

#[cfg(test)]
mod tests {
    use blixard_model::api::ErrorKind;
    use blixard_model::vm::{Disk, Hypervisor};

    use super::*;

    fn args() -> SpecArgs {
        SpecArgs {
            name: Some("web".parse().expect("name")),
            kernel: Some("/boot/vmlinux".into()),
            ..SpecArgs::default()
        }
    }

    #[test]
    fn a_name_and_a_kernel_are_enough() {
        let spec = spec_of(&args(), None).expect("spec");
        assert_eq!(
            (spec.name.as_str(), spec.cpus, spec.memory_mib, spec.kernel.as_str()),
            ("web", 1, 256, "/boot/vmlinux")
        );
        assert_eq!((spec.initrd, spec.node, spec.hypervisor), (None, None, Hypervisor::Qemu));
    }

    #[test]
    fn every_flag_lands_in_its_field() {
        let disk = Disk { path: "/d/a.raw".into(), read_only: true };
        let all = SpecArgs {
            cpus: Some(2),
            memory_mib: Some(512),
            initrd: Some("/boot/initrd".into()),
            cmdline: Some("quiet".into()),
            disks: vec![disk.clone()],
            node: Some("n2".parse().expect("name")),
            hypervisor: Some(Hypervisor::Qemu),
            ..args()
        };
        let spec = spec_of(&all, None).expect("spec");
        assert_eq!((spec.cpus, spec.memory_mib, spec.cmdline.as_str()), (2, 512, "quiet"));
        assert_eq!(spec.initrd.as_deref(), Some("/boot/initrd"));
        assert_eq!((spec.disks, spec.node), (vec![disk], Some("n2".parse().expect("name"))));
    }

    #[test]
    fn flags_win_over_the_file_and_the_rest_of_the_file_stays() {
        let file = r#"{"name":"db","cpus":4,"memory_mib":1024,"kernel":"/k","cmdline":"ro"}"#;
        let spec = spec_of(&SpecArgs { cpus: Some(2), ..args() }, Some(file)).expect("spec");
        assert_eq!((spec.name.as_str(), spec.cpus, spec.memory_mib), ("web", 2, 1024));
        assert_eq!((spec.kernel.as_str(), spec.cmdline.as_str()), ("/boot/vmlinux", "ro"));
    }

    #[test]
    fn a_file_alone_is_a_spec() {
        let spec = spec_of(&SpecArgs::default(), Some(r#"{"name":"db","kernel":"/k"}"#)).expect("spec");
        assert_eq!((spec.name.as_str(), spec.cpus), ("db", 1));
    }

    #[test]
    fn what_can_not_be_is_a_usage_failure_that_names_the_field() {
        let file = |text: &'static str| (SpecArgs::default(), Some(text));
        let cases = [
            (file("[]"), "JSON object"),
            (file("{"), "not JSON"),
            (file(r#"{"name":"db","kernel":"/k","memroy":1}"#), "memroy"),
            (file(r#"{"name":"db"}"#), "kernel"),
            (file(r#"{"name":"../x","kernel":"/k"}"#), "VM name"),
            ((SpecArgs { memory_mib: Some(0), ..args() }, None), "memory_mib"),
            ((SpecArgs { kernel: Some("vmlinux".into()), ..args() }, None), "kernel"),
        ];
        for ((args, file), needle) in cases {
            let failure = spec_of(&args, file).expect_err("can not be");
            assert_eq!(failure.kind, ErrorKind::Usage, "{failure:?}");
            assert!(failure.cause.contains(needle), "{needle}: {failure:?}");
        }
    }

    #[test]
    fn an_invalid_value_carries_the_refusal() {
        let failure = spec_of(&SpecArgs { cpus: Some(0), ..args() }, None).expect_err("no cpus");
        assert!(matches!(failure.refusal.as_deref(), Some(Refusal::InvalidSpec(i)) if i.field == "cpus"));
    }
}
