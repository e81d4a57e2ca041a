#!/bin/sh
# Disk images of the machine tests: a Debian system with its own kernel, and the packages that bundles bring to it.
#
#   image.sh NAME...     make the images that are missing, or whose recipe changed
#
#   debian-12         what is Essential or Required, a kernel, systemd, ssh and zram
#   debian-12-site    also firewalld, ufw, nftables, NetworkManager and SELinux's policy, all of them off
#   debian-13         as debian-12
#   debian-12-arm64   as debian-12, for another processor
#
# Leaves <lab cache>/machines/NAME: disk.qcow2, vmlinuz, initrd.img, brought (names of packages for bundles),
# packages/*.deb, recipe.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lab/common.sh"
disk_size=24G
own=$(dpkg --print-architecture 2>/dev/null || echo none)

# The libraries are those of Debian's dockerd and runc, which upstream links statically.
base=initramfs-tools,udev,systemd-sysv,dbus,openssh-server,libdevmapper1.02.1,libseccomp2,zram-tools
site=firewalld,ufw,nftables,network-manager,selinux-policy-default,selinux-utils,policycoreutils,policycoreutils-python-utils,auditd
brought='nginx libnginx-mod-stream keepalived iproute2 openssl iptables conntrack ipset ipvsadm kmod curl'
brought="$brought iputils-ping socat ethtool apparmor"

main() {
    [ $# -gt 0 ] || {
        sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
        exit 2
    }
    if ! is_root || ! [ -e /etc/debian_version ]; then fail "images of machines are made as root on Debian"; fi
    need mmdebstrap:mmdebstrap qemu-img:qemu-utils mkfs.ext4:e2fsprogs
    for name; do ensure_image "$name"; done
}

# name, release, architecture, kernel, packages
images() {
    cat <<IMAGES
debian-12       bookworm amd64 linux-image-amd64       $base
debian-12-site  bookworm amd64 linux-image-amd64       $base,$site
debian-13       trixie   amd64 linux-image-amd64       $base
debian-12-arm64 bookworm arm64 linux-image-cloud-arm64 $base
IMAGES
}

recipe() {
    printf '%s\n' "$row" "$brought" $disk_size
    sed '1,/^# make_root/d' "$here/image.sh"
    cat "$here/prepare-root.sh"
    case $row in *"$own"*) ;; *) cat "$here/foreign.sh" ;; esac
}

ensure_image() {
    row=$(images | awk -v name="$1" '$1 == name')
    [ -n "$row" ] || fail "there is no image $1"
    target=$LAB_CACHE/machines/$1
    ! recipe | cmp -s - "$target/recipe" || return 0
    say "making the image $1 (about 2 minutes)"
    rm -rf "$target" "$target.new"
    mkdir -p "$target.new/packages/partial"
    # shellcheck disable=SC2086 # the words of a row
    make $row
    printf '%s\n' "$brought" >"$target.new/brought"
    recipe >"$target.new/recipe"
    mv "$target.new" "$target"
}

# make NAME RELEASE ARCHITECTURE KERNEL PACKAGES
make() {
    if [ "$3" = "$own" ]; then
        make_root "$@"
        make_disk
    else
        "$here/foreign.sh" "$target.new" "$2" "$3" $disk_size "$4,$5" "$brought"
    fi
}

# make_root NAME RELEASE ARCHITECTURE KERNEL PACKAGES
make_root() {
    # shellcheck disable=SC2016,SC2046 # mmdebstrap expands the hooks' variables; one word a file
    sources "$2" | mmdebstrap --quiet --mode=root --variant=minbase --architectures="$3" --include="$4,$5" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Check-Valid-Until "false"' \
        --customize-hook="sh '$here/prepare-root.sh' \"\$1\" '$target.new'" \
        --customize-hook="APT_CONFIG=\"\$MMDEBSTRAP_APT_CONFIG\" apt-get -qq --yes --no-install-recommends \
            --download-only -o Dir::Cache::archives='$target.new/packages' install $brought >/dev/null" \
        "$2" "$target.new/root.tar" -
    rm -rf "$target.new/packages/partial" "$target.new/packages/lock"
}

# The machine's own package sources, for another release of Debian.
sources() {
    find /etc/apt/sources.list /etc/apt/sources.list.d -maxdepth 1 -type f \
        \( -name 'debian*.sources' -o -name 'sources.list' -o -name 'debian*.list' \) -exec cat {} + 2>/dev/null |
        sed "s/bookworm/$1/g"
}

make_disk() {
    root=$target.new/root
    mkdir "$root"
    tar -C "$root" --xattrs --xattrs-include='*' -xf "$target.new/root.tar"
    rm "$target.new/root.tar"
    truncate -s $disk_size "$target.new/disk.raw"
    mkfs.ext4 -q -F -L root -E lazy_itable_init=1 -d "$root" "$target.new/disk.raw"
    qemu-img convert -O qcow2 "$target.new/disk.raw" "$target.new/disk.qcow2"
    rm -rf "$root" "$target.new/disk.raw"
}

main "$@"
