import gzip
import lzma
import struct
import unittest

import cpio
import guest
from errors import LabError

KERNEL = b"\x7fELF" + bytes(range(256)) * 8


def bz_image(payload):
    sectors = 2
    head = bytearray(0x400)
    head[0x1F1] = sectors
    head[0x202:0x206] = b"HdrS"
    offset = 16
    struct.pack_into("<II", head, 0x248, offset, len(payload))
    head = head.ljust((sectors + 1) * 512 + offset, b"\0")
    return bytes(head) + payload + b"trailing"


def read_archive(data):
    """The archive's names, modes and contents, as the kernel reads them."""
    found, at = {}, 0
    while True:
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        assert data[at : at + 6] == b"070701"
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        body = at + 110 + fields[11]
        body += -body % 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[body : body + fields[6]])
        at = body + fields[6]
        at += -at % 4


class Kernel(unittest.TestCase):
    def test_the_payload_is_cut_out_and_uncompressed(self):
        for compress in (gzip.compress, lzma.compress):
            self.assertEqual(KERNEL, guest.uncompress(guest.payload(bz_image(compress(KERNEL)))))

    def test_what_is_no_kernel_is_refused(self):
        with self.assertRaisesRegex(LabError, "not a bzImage"):
            guest.payload(bytes(1024))
        with self.assertRaisesRegex(LabError, "does not know"):
            guest.uncompress(b"unknown")
        with self.assertRaisesRegex(LabError, "ELF"):
            guest.uncompress(gzip.compress(b"no kernel"))


class Initramfs(unittest.TestCase):
    def test_it_holds_what_the_script_calls(self):
        files = read_archive(guest.initramfs(b"busybox", [("virtio_blk", b"module")]))
        self.assertEqual((0o100755, b"busybox"), files["bin/busybox"])
        self.assertEqual((0o120777, b"busybox"), files["bin/sh"])
        self.assertEqual((0o100644, b"module"), files["modules/virtio_blk.ko"])
        self.assertEqual(0o100755, files["init"][0])
        self.assertEqual(0o020600, files["dev/console"][0])

    def test_the_same_files_are_the_same_archive(self):
        entries = [cpio.directory("a"), cpio.file("a/b", b"c")]
        self.assertEqual(cpio.archive(entries), cpio.archive(entries))
        self.assertEqual({"a": (0o040755, b""), "a/b": (0o100644, b"c")}, read_archive(cpio.archive(entries)))
