# The guest of the stories on NixOS: nixpkgs' kernel, uncompressed, and an initramfs of busybox and the lab's
# own init.
{
  lib,
  cpio,
  kmod,
  linuxPackages,
  pkgsStatic,
  runCommand,
  xz,
  zstd,
}:
let
  inherit (linuxPackages) kernel;
  modules = lib.getOutput "modules" kernel;

  # The lab's init loads the virtio drivers. nixpkgs' kernel has what they rest on as modules too, and the
  # keyboard that ctrl-alt-delete comes from; Debian's has all that built in.
  first = [
    "i8042"
    "atkbd"
  ];
  last = [
    "virtio_mmio"
    "virtio_blk"
  ];
in
runCommand "blixard-test-guest"
  {
    nativeBuildInputs = [
      cpio
      kmod
      xz
      zstd
    ];
  }
  ''
    mkdir -p root/{bin,dev,modules,proc,sys}
    cp -a ${pkgsStatic.busybox}/bin/. root/bin
    cp ${./lab/guest_init.sh} root/lab-init
    {
      echo '#!/bin/busybox sh'
      for module in ${toString (first ++ last)}; do
        modprobe --dirname=${modules} --set-version=${kernel.modDirVersion} --show-depends "$module"
      done | while read -r verb file _; do
        # A line is "insmod FILE" or "builtin NAME"; what several modules need is named again.
        [ "$verb" = insmod ] || continue
        name=$(basename "''${file%%.ko*}")
        [ ! -e "root/modules/$name.ko" ] || continue
        case "$file" in
          *.xz) xz -dc "$file" ;;
          *.zst) zstd -dcq "$file" ;;
          *) cat "$file" ;;
        esac > "root/modules/$name.ko"
        case " ${toString last} " in
          *" $name "*) ;;
          *) echo "/bin/busybox insmod /modules/$name.ko" ;;
        esac
      done
      echo 'exec /bin/busybox sh /lab-init'
    } > root/init
    chmod 0755 root/init root/lab-init

    mkdir "$out"
    ln -s ${kernel.dev}/vmlinux "$out/vmlinux"
    cd root
    find . -print0 | sort -z | cpio --null --create --format=newc --owner=+0:+0 --reproducible > "$out/initrd"
  ''
