"""The guest in the lab's VMs: Debian's cloud kernel, uncompressed, an initramfs of busybox and a script."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import cpio
import progress
from errors import LabError
from rootfs import RootFs

#: Modules the guest loads: the rest of what it needs is built into the kernel.
MODULES = ("drivers/virtio/virtio_mmio", "drivers/block/virtio_blk")

_INIT = Path(__file__).with_name("guest_init.sh")
_DIRECTORIES = ("bin", "dev", "modules", "proc", "sys")
_APPLETS = (
    "cat", "dd", "echo", "insmod", "mkfifo", "mount", "printf", "reboot", "sh", "sync", "tr",
)

# Offsets in the header of a bzImage (Documentation/arch/x86/boot.rst of Linux).
_SETUP_SECTORS = 0x1F1
_BOOT_MAGIC = 0x202
_PAYLOAD = 0x248
_SECTOR_BYTES = 512
_ELF_MAGIC = b"\x7fELF"


@dataclass(frozen=True)
class Guest:
    """A finished guest."""

    home: Path

    @property
    def vmlinux(self) -> Path:
        """The uncompressed kernel."""
        return self.home / "vmlinux"

    @property
    def initrd(self) -> Path:
        """The initramfs."""
        return self.home / "initrd"


def payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage."""
    if image[_BOOT_MAGIC : _BOOT_MAGIC + 4] != b"HdrS":
        raise LabError("the guest's kernel is not a bzImage")
    sectors = image[_SETUP_SECTORS] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    begin = (sectors + 1) * _SECTOR_BYTES + offset
    return image[begin : begin + length]


def uncompress(data: bytes) -> bytes:
    """The kernel that `payload` gave, as the ELF file it is."""
    if data[:4] == b"\x28\xb5\x2f\xfd":
        # The kernel's build appends the size of the result, which zstd takes for garbage after the frame.
        kernel = subprocess.run(["zstd", "-dcq"], input=data[:-4], capture_output=True, check=True).stdout
    elif data[:6] == b"\xfd7zXZ\0":
        kernel = lzma.LZMADecompressor().decompress(data)
    elif data[:2] == b"\x1f\x8b":
        kernel = zlib.decompressobj(wbits=31).decompress(data)
    else:
        raise LabError(f"the guest's kernel is compressed in a way the lab does not know: {data[:6].hex()}")
    if kernel[:4] != _ELF_MAGIC:
        raise LabError("the guest's kernel did not uncompress to an ELF file")
    return kernel


def initramfs(busybox: bytes, modules: list[tuple[str, bytes]]) -> bytes:
    """The archive: busybox, the init script, and the modules that the script loads."""
    entries = [cpio.directory(name) for name in _DIRECTORIES]
    entries.append(cpio.character_device("dev/console", 5, 1))
    entries.append(cpio.file("bin/busybox", busybox, 0o755))
    entries.extend(cpio.symlink(f"bin/{applet}", "busybox") for applet in _APPLETS)
    entries.append(cpio.file("init", _INIT.read_bytes(), 0o755))
    entries.extend(cpio.file(f"modules/{name}.ko", data) for name, data in modules)
    return cpio.archive(entries)


def _module(unpacked: Path, name: str) -> tuple[str, bytes]:
    found = list(unpacked.glob(f"**/lib/modules/*/kernel/{name}.ko*"))
    if not found:
        raise LabError(f"the kernel's package has no module {name}")
    data = found[0].read_bytes()
    if found[0].suffix == ".xz":
        data = lzma.decompress(data)
    return name.rsplit("/", 1)[1], data


def _recipe_hash(root: RootFs) -> str:
    digest = hashlib.sha256(root.recipe.encode())
    for source in (_INIT, Path(__file__), Path(cpio.__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def ensure(cache: Path, root: RootFs) -> Guest:
    """Builds the guest unless it is there. Throws away those of older recipes."""
    guest = Guest(cache / f"guest-{_recipe_hash(root)}")
    if guest.home.exists():
        return guest
    for old in cache.glob("guest-*"):
        shutil.rmtree(old)
    partial = Guest(guest.home.with_suffix(".partial"))
    partial.home.mkdir(parents=True)
    with progress.step("building the guest"), tempfile.TemporaryDirectory() as scratch:
        unpacked = Path(scratch)
        subprocess.run(["dpkg-deb", "-x", root.kernel_package, unpacked], check=True)
        image = next(unpacked.glob("boot/vmlinuz-*")).read_bytes()
        partial.vmlinux.write_bytes(uncompress(payload(image)))
        busybox = (root.tree / "usr/bin/busybox").read_bytes()
        partial.initrd.write_bytes(initramfs(busybox, [_module(unpacked, name) for name in MODULES]))
    partial.home.rename(guest.home)
    return guest
