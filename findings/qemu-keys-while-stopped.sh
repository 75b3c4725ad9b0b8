#!/usr/bin/env bash
# package: qemu-system-x86 10.0.13 (Debian 13; needs root, mmdebstrap and python3)
#
# Expected: keys that `send-key` presses while the guest stands still are refused, or reach it once it goes
# on. Instead QMP answers as if they were pressed, and they are gone: a guest that is paused, or stands
# still for a full disk, is never asked to shut down. So a stop lets a paused guest go on first, and ends
# one that stands still for a disk after its time (agent/launcher/src/supervisor/mod.rs).
set -eu

pinned=1:10.0.13+ds-0+deb13u1
dir=$(mktemp -d)
trap 'rm -rf --one-file-system "$dir"' EXIT
mmdebstrap --quiet --variant=minbase --include="qemu-system-x86=$pinned" \
  --include=linux-image-cloud-amd64,busybox-static,cpio trixie "$dir/root" http://deb.debian.org/debian
version=$(chroot "$dir/root" dpkg-query --showformat='${Version}' --show qemu-system-x86)
echo "QEMU $version"

# A guest that says when ctrl-alt-delete has come.
mkdir -p "$dir/root/guest/bin" "$dir/root/guest/dev" "$dir/root/guest/proc"
cp "$dir/root/usr/bin/busybox" "$dir/root/guest/bin/busybox"
cat > "$dir/root/guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec > /dev/ttyS0 2>&1 < /dev/null
echo 0 > /proc/sys/kernel/ctrl-alt-del
trap 'echo HEARD' INT
echo LISTENS
while :; do /bin/busybox sleep 1 & wait $!; done
INIT
chmod +x "$dir/root/guest/init"
chroot "$dir/root" sh -c 'cd /guest && find . | cpio --quiet --create --format=newc > /initrd'
cp "$dir"/root/boot/vmlinuz-* "$dir/root/kernel"

python3 - "$dir/root" <<'PY'
import json, os, socket, subprocess, sys, time

root = sys.argv[1]
console = os.path.join(root, "console")
qemu = subprocess.Popen(
    ["chroot", root, "qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "256M", "-display", "none",
     "-nodefaults", "-kernel", "/kernel", "-initrd", "/initrd", "-append", "console=ttyS0 quiet",
     "-serial", "file:/console", "-qmp", "unix:/qmp,server=on,wait=off"],
    stdin=subprocess.DEVNULL,
)


def says(word, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.path.exists(console) and word in open(console, "rb").read():
            return True
        time.sleep(0.1)
    return False


try:
    if not says(b"LISTENS", 180):
        sys.exit("the guest does not boot here")
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(os.path.join(root, "qmp"))
    qmp = stream.makefile("rw")
    qmp.readline()

    def command(name, **arguments):
        qmp.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        qmp.flush()
        while True:
            said = json.loads(qmp.readline())
            if "event" not in said:
                return said

    keys = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
    command("qmp_capabilities")
    command("stop")
    answer = command("send-key", keys=keys)
    command("cont")
    heard = says(b"HEARD", 10)
    command("send-key", keys=keys)
    heard_running = says(b"HEARD", 30)
finally:
    qemu.kill()
print("expected: an error, or the guest hears the keys once it goes on")
print(f"seen: {answer}; heard after cont: {heard}; heard when pressed while it runs: {heard_running}")
sys.exit(0 if (answer, heard, heard_running) == ({"return": {}}, False, True) else 1)
PY
