//! Distinguishes a raw disk from an image in another format, by the bytes with which such an image begins or
//! ends.
//!
//! Disks are given to the hypervisor as raw. QEMU would open an image in another format as well: the guest
//! would see the format's header as its first sectors, and its first write there would destroy the image.
//! This module reads a few hundred bytes and never writes. It runs no program on a file that a guest may have
//! written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An image format that is not raw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// The usual name of the format.
    pub(crate) name: &'static str,
    /// Its name for `qemu-img -f`.
    qemu_img: &'static str,
}

/// Where the mark of a format is, in bytes from the beginning or the end of the image.
#[derive(Debug, Clone, Copy)]
enum MarkPlace {
    FromStart(u64),
    FromEnd(u64),
}

const QCOW: Format = Format { name: "qcow", qemu_img: "qcow" };
const QCOW2: Format = Format { name: "qcow2", qemu_img: "qcow2" };
const QED: Format = Format { name: "QED", qemu_img: "qed" };
const VMDK: Format = Format { name: "VMDK", qemu_img: "vmdk" };
const VHDX: Format = Format { name: "VHDX", qemu_img: "vhdx" };
const VDI: Format = Format { name: "VDI", qemu_img: "vdi" };
const VHD: Format = Format { name: "VHD", qemu_img: "vpc" };
const PARALLELS: Format = Format { name: "Parallels", qemu_img: "parallels" };

/// The marks, as each format's specification gives them.
const MARKS: &[(MarkPlace, &[u8], Format)] = &[
    (MarkPlace::FromStart(0), b"QFI\xfb\0\0\0\x01", QCOW),
    (MarkPlace::FromStart(0), b"QFI\xfb\0\0\0\x02", QCOW2),
    (MarkPlace::FromStart(0), b"QFI\xfb\0\0\0\x03", QCOW2),
    (MarkPlace::FromStart(0), b"QED\0", QED),
    (MarkPlace::FromStart(0), b"KDMV", VMDK),
    (MarkPlace::FromStart(0), b"COWD", VMDK),
    (MarkPlace::FromStart(0), b"# Disk DescriptorFile", VMDK),
    (MarkPlace::FromStart(0), b"vhdxfile", VHDX),
    (MarkPlace::FromStart(64), &0xbeda_107f_u32.to_le_bytes(), VDI),
    // A VHD that grows begins with a copy of its footer. A VHD of fixed size has only the footer, which old
    // programs wrote one byte too short.
    (MarkPlace::FromStart(0), b"conectix", VHD),
    (MarkPlace::FromEnd(512), b"conectix", VHD),
    (MarkPlace::FromEnd(511), b"conectix", VHD),
    (MarkPlace::FromStart(0), b"WithoutFreeSpace", PARALLELS),
    (MarkPlace::FromStart(0), b"WithouFreSpacExt", PARALLELS),
];

impl Format {
    /// What is wrong with giving `path` to a VM, and how to correct it.
    pub(crate) fn refusal(self, path: &str) -> String {
        let Self { name, qemu_img } = self;
        let (from, to) = (quoted(path), quoted(&raw_name(path)));
        format!(
            "is a {name} image and disks are raw: convert it with `qemu-img convert -f {qemu_img} -O raw \
             {from} {to}` and name the result (but do not convert a disk that a guest could write to as raw: \
             the header may be the guest's, and name files of this machine)"
        )
    }
}

/// The format of a file or device of `len` bytes; `None` when it can be a raw disk.
pub(crate) fn format_of(file: &File, len: u64) -> io::Result<Option<Format>> {
    for (place, mark, format) in MARKS {
        let start = match place {
            MarkPlace::FromStart(offset) => Some(*offset),
            MarkPlace::FromEnd(distance) => len.checked_sub(*distance),
        };
        if let Some(start) = start
            && holds(file, start, mark)?
        {
            return Ok(Some(*format));
        }
    }
    Ok(None)
}

fn holds(file: &File, start: u64, mark: &[u8]) -> io::Result<bool> {
    let mut found = vec![0; mark.len()];
    match file.read_exact_at(&mut found, start) {
        Ok(()) => Ok(found == mark),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A name beside `path`, for the converted disk.
fn raw_name(path: &str) -> String {
    let raw = Path::new(path).with_extension("raw").display().to_string();
    if raw == path { format!("{path}.raw") } else { raw }
}

/// The path as one word for a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn format(bytes: &[u8]) -> Option<Format> {
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(bytes).expect("write");
        format_of(&file, bytes.len() as u64).expect("read")
    }

    /// A disk of 1 MiB with `mark` at `offset`.
    fn disk(offset: usize, mark: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        bytes[offset..offset + mark.len()].copy_from_slice(mark);
        bytes
    }

    #[test]
    fn each_format_is_known_by_its_mark() {
        let cases: [(usize, &[u8], Format); 11] = [
            (0, b"QFI\xfb\0\0\0\x01", QCOW),
            (0, b"QFI\xfb\0\0\0\x02", QCOW2),
            (0, b"QFI\xfb\0\0\0\x03", QCOW2),
            (0, b"QED\0", QED),
            (0, b"KDMV", VMDK),
            (0, b"# Disk DescriptorFile\nversion=1", VMDK),
            (0, b"vhdxfile", VHDX),
            (64, b"\x7f\x10\xda\xbe", VDI),
            (0, b"conectix", VHD),
            ((1 << 20) - 512, b"conectix", VHD),
            ((1 << 20) - 511, b"conectix", VHD),
        ];
        for (offset, mark, wanted) in cases {
            assert_eq!(format(&disk(offset, mark)), Some(wanted), "{wanted:?}");
        }
    }

    #[test]
    fn raw_disks_short_files_and_marks_elsewhere_are_raw() {
        for bytes in [
            &[][..],
            b"x",
            b"QFI",
            &disk(1, b"QFI\xfb\0\0\0\x03"),
            &disk(4096, b"conectix"),
            &disk(510, b"\x55\xaa"),
            &disk(0, b"LUKS\xba\xbe"),
            &vec![0; 511],
        ] {
            assert_eq!(format(bytes), None);
        }
    }

    #[test]
    fn the_refusal_names_a_command_that_can_be_pasted() {
        let text = QCOW2.refusal("/d/web.qcow2");
        assert!(text.contains("`qemu-img convert -f qcow2 -O raw /d/web.qcow2 /d/web.raw`"), "{text}");
        let text = VHD.refusal("/d/it's here.raw");
        let command = r"`qemu-img convert -f vpc -O raw '/d/it'\''s here.raw' '/d/it'\''s here.raw.raw'`";
        assert!(text.contains(command), "{text}");
    }
}
