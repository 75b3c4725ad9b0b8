#!/bin/busybox sh
# The user space of the lab's guest: it says that it is up, which boot of its disk this is, and that it lives.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1

# The hypervisor names its virtio devices on the command line; insmod does not look there by itself.
name=unnamed
devices=
fill=
mute=
deaf=
slow=
say=
read -r words </proc/cmdline
for word in $words; do
  case "$word" in
  blixard.name=*) name=${word#blixard.name=} ;;
  virtio_mmio.device=*) devices="$devices ${word#virtio_mmio.}" ;;
  blixard.fill=*) fill=${word#blixard.fill=} ;;
  # On the console it says only that it is up.
  blixard.mute) mute=1 ;;
  # It does not shut down when it is asked to.
  blixard.deaf) deaf=1 ;;
  # It takes so many seconds to shut down.
  blixard.slow=*) slow=${word#blixard.slow=} ;;
  # What it prints as a line of its own, with escapes as printf has them.
  blixard.say=*) say=${word#blixard.say=} ;;
  esac
done
insmod /modules/virtio_mmio.ko $devices
insmod /modules/virtio_blk.ko

# Ctrl-alt-delete comes to init as SIGINT once the kernel is told not to reboot by itself. `reboot -f` ends
# the hypervisor, which runs with -no-reboot.
echo 0 >/proc/sys/kernel/ctrl-alt-del
stop() {
  [ -z "$deaf" ] || return
  trap '' INT
  [ -z "$slow" ] || read -t "$slow" -u 4 nothing
  echo BLIXARD-GUEST-DOWN
  sync
  reboot -f
}
trap stop INT

# The number of this boot, kept as text in the first bytes of the first writable disk; 0 without one.
boot=0
for disk in /sys/block/vd*; do
  [ "$(cat "$disk/ro" 2>/dev/null)" = 0 ] || continue
  device=/dev/${disk##*/}
  boot=$(dd if="$device" bs=16 count=1 2>/dev/null | tr -cd 0-9)
  boot=$((${boot:-0} + 1))
  printf '%-15d\n' "$boot" | dd of="$device" bs=16 conv=notrunc,fsync 2>/dev/null
  break
done
[ -z "$say" ] || printf '%b\n' "$say"
echo "BLIXARD-GUEST-UP name=$name boot=$boot"

# A story may want so many MiB written to that disk, behind the number.
if [ -n "$fill" ]; then
  {
    dd if=/dev/zero of="$device" bs=65536 seek=1 count=$((fill * 16)) conv=notrunc,fsync 2>/dev/null
    echo "BLIXARD-GUEST-FILLED $fill MiB"
  } &
fi

# Ten times a second it tells the recorder that it lives: name, boot, node, seconds since it booted. The port
# is the lab's; elsewhere there is none. No process is started for it: many guests share two processors.
port=vport0p1
node=
mkfifo /never
exec 3>/dev/null 4<>/never
beat=0
while :; do
  # Nobody ever writes there. A signal runs its trap at once.
  read -t 0.1 -u 4 nothing
  if [ -z "$node" ] && [ -e "/dev/$port" ] && read -r called <"/sys/class/virtio-ports/$port/name"; then
    node=${called#heartbeats@}
    exec 3>"/dev/$port"
  fi
  read -r up idle </proc/uptime
  echo "$name $boot ${node:--} $up" >&3
  beat=$((beat + 1))
  [ -n "$mute" ] || [ $((beat % 10)) != 0 ] || echo "BLIXARD-HEARTBEAT $((beat / 10))"
done
