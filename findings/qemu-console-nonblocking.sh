#!/usr/bin/env bash
# package: qemu-system-x86 10.0.13 (Debian 13; needs root, mmdebstrap and python3)
#
# Expected: a hypervisor whose console goes to its stdout leaves that as it was for the others who write
# there, as its parent does when both inherited one socket of the journal. Instead `-chardev stdio` makes it
# non-blocking, which is a property of the open file and not of QEMU's descriptor: every writer gets EAGAIN
# once the reader is slow. A clean end puts it back; a QEMU that is killed leaves it. So the supervisor
# writes its words with MSG_DONTWAIT and no error of that matters (agent/launcher/src/say.rs).
set -eu

pinned=1:10.0.13+ds-0+deb13u1
dir=$(mktemp -d)
trap 'rm -rf --one-file-system "$dir"' EXIT
mmdebstrap --quiet --variant=minbase --include="qemu-system-x86=$pinned" \
  trixie "$dir/root" http://deb.debian.org/debian
version=$(chroot "$dir/root" dpkg-query --showformat='${Version}' --show qemu-system-x86)
echo "QEMU $version"

python3 - "$dir/root" <<'PY'
import fcntl, os, signal, subprocess, sys, time

root = sys.argv[1]


def is_nonblocking(fd):
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)


seen = {}
for how in (signal.SIGTERM, signal.SIGKILL):
    read, write = os.pipe()
    before = is_nonblocking(write)
    qemu = subprocess.Popen(
        ["chroot", root, "qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-S",
         "-chardev", "stdio,id=console,signal=off"],
        stdin=subprocess.DEVNULL, stdout=write,
    )
    deadline = time.monotonic() + 30
    while not is_nonblocking(write) and qemu.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    during = is_nonblocking(write)
    qemu.send_signal(how)
    qemu.wait()
    seen[how.name] = (before, during, is_nonblocking(write))
print("expected: the pipe is blocking before, while and after QEMU runs: (False, False, False)")
print(f"seen: {seen}")
same = seen == {"SIGTERM": (False, True, False), "SIGKILL": (False, True, True)}
sys.exit(0 if same else 1)
PY
