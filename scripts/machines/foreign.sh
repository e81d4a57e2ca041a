#!/bin/sh
# The disk of a machine with another processor. Its packages are unpacked here and configured in the machine itself,
# because this kernel may run no program of another processor.
#
#   foreign.sh DIRECTORY RELEASE ARCHITECTURE SIZE PACKAGES BROUGHT
#
# PACKAGES are separated by commas, BROUGHT by spaces. Leaves DIRECTORY: disk.qcow2, vmlinuz, initrd.img,
# packages/*.deb.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lab/common.sh"
directory=$1 release=$2 architecture=$3 size=$4 included=$5 brought=$6
root=$directory/root disk=$directory/disk.raw
busybox_words='sh mount insmod mkdir chroot umount sync poweroff'

main() {
    need debootstrap:debootstrap qemu-system-aarch64:qemu-system-arm cpio:cpio debugfs:e2fsprogs modprobe:kmod
    debootstrap --foreign --arch="$architecture" --variant=minbase --include="$included" \
        "$release" "$root" "$(find_mirror)" >"$directory/debootstrap.log"
    use_apt "$root/nowhere"
    make_first_boot
    make_disk
    run_first_boot
    take_results
    qemu-img convert -O qcow2 "$disk" "$directory/disk.qcow2"
    rm -rf "$root" "$disk" "$directory/first" "$directory/first.img" "$directory/apt" "$directory/status"
}

find_mirror() {
    find /etc/apt/sources.list /etc/apt/sources.list.d -maxdepth 1 -type f \
        \( -name 'debian*.sources' -o -name 'sources.list' -o -name 'debian*.list' \) -exec cat {} + 2>/dev/null |
        awk '$1 == "URIs:" { print $2; exit } $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; exit } }'
}

# use_apt STATUS: apt for the other processor, with the packages of that status
use_apt() {
    mkdir -p "$directory/apt/lists/partial" "$directory/apt/sources" "$directory/packages/partial"
    cat >"$directory/apt/conf" <<CONF
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "root";
Acquire::Check-Valid-Until "false";
Dir::State "$directory/apt";
Dir::State::status "$1";
Dir::Cache "$directory/apt";
Dir::Cache::archives "$directory/packages";
CONF
    export APT_CONFIG="$directory/apt/conf"
}

# A file system in memory with busybox and the drivers of the disk: it configures the packages on the disk.
make_first_boot() {
    first=$directory/first
    mkdir -p "$first/bin" "$first/modules" "$first/disk" "$first/proc" "$first/sys" "$first/dev"
    : >"$directory/apt/no-status"
    use_apt "$directory/apt/no-status"
    apt-get -qq update
    (cd "$directory/apt" && apt-get -qq download busybox-static && dpkg-deb -x busybox-static_*.deb busybox)
    cp "$(find "$directory/apt/busybox" -name busybox -type f -perm -u+x | head -1)" "$first/bin/busybox"
    for word in $busybox_words; do ln -s busybox "$first/bin/$word"; done
    kernel=$(find "$root/var/cache/apt/archives" -name 'linux-image-[0-9]*.deb')
    dpkg-deb -x "$kernel" "$directory/apt/kernel"
    version=$(basename "$directory"/apt/kernel/lib/modules/*)
    depmod -b "$directory/apt/kernel" "$version"
    for module in virtio_pci virtio_blk ext4; do
        modprobe -d "$directory/apt/kernel" -S "$version" --show-depends $module
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$directory/apt/modules"
    xargs -r cp -t "$first/modules" <"$directory/apt/modules"
    # shellcheck disable=SC2016 # the machine expands the variables
    {
        echo '#!/bin/sh'
        echo 'mount -t devtmpfs none /dev; mount -t proc none /proc; mount -t sysfs none /sys'
        sed 's|.*/|insmod /modules/|' "$directory/apt/modules"
        echo 'mount -t ext4 /dev/vda /disk'
        echo 'for each in dev proc sys; do mount --bind /$each /disk/$each; done'
        echo 'chroot /disk /bin/sh /first-boot.sh'
        echo 'umount /disk/dev /disk/proc /disk/sys; umount /disk; sync; poweroff -f'
    } >"$first/init"
    chmod 0755 "$first/init"
    (cd "$first" && find . | cpio -o -H newc --quiet) | gzip -1 >"$directory/first.img"
    cp "$directory"/apt/kernel/boot/vmlinuz-* "$directory/vmlinuz"
    cp "$here/prepare-root.sh" "$root/prepare-root.sh"
    cat >"$root/first-boot.sh" <<'FIRST'
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
/debootstrap/debootstrap --second-stage && mkdir /first-boot && sh /prepare-root.sh / /first-boot &&
    rm -f /var/cache/apt/archives/*.deb /prepare-root.sh && echo configured >/first-boot/end
FIRST
}

make_disk() {
    truncate -s "$size" "$disk"
    mkfs.ext4 -q -F -L root -E lazy_itable_init=1 -d "$root" "$disk"
}

run_first_boot() {
    say "configuring the packages in the machine (log: $directory/console.log)"
    qemu-system-aarch64 -machine virt -cpu max,pauth-impdef=on,sve=off -accel tcg,thread=multi -smp 2 -m 3072 -nodefaults \
        -display none -no-reboot -serial "file:$directory/console.log" -drive "file=$disk,if=virtio,format=raw,cache=unsafe" \
        -kernel "$directory/vmlinuz" -initrd "$directory/first.img" -append 'console=ttyAMA0 panic=-1 mitigations=off'
    [ "$(read_disk /first-boot/end)" = configured ] || {
        tail -20 "$directory/console.log" >&2
        fail "the packages of $architecture could not be configured"
    }
}

read_disk() { debugfs -R "cat $1" "$disk" 2>/dev/null; }

take_results() {
    read_disk /first-boot/initrd.img >"$directory/initrd.img"
    read_disk /first-boot/vmlinuz >"$directory/vmlinuz"
    read_disk /var/lib/dpkg/status >"$directory/status"
    use_apt "$directory/status"
    # shellcheck disable=SC2086 # one word a package
    apt-get -qq --yes --no-install-recommends --download-only install $brought >/dev/null
    rm -rf "$directory/packages/partial" "$directory/packages/lock"
}

main
