#!/bin/sh
# Stands before the hypervisor in the lab's machines: its guest gets a port for heartbeats, which the
# hypervisor writes to a file where the recorder finds it, outside the machine. The port's name says on which
# node that is. /usr/local/bin comes first in the PATH of units.
if [ "${1-}" = -name ] && [ -n "${RUNTIME_DIRECTORY-}" ]; then
  read -r node </etc/hostname
  set -- "$@" -device virtio-serial-device \
    -chardev "file,id=heartbeats,path=$RUNTIME_DIRECTORY/heartbeats" \
    -device "virtserialport,chardev=heartbeats,name=heartbeats@$node"
fi
exec /usr/bin/qemu-system-x86_64 "$@"
