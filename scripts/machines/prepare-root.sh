#!/bin/sh
# In mmdebstrap, at its end: make a root file system one of a machine that boots by itself.
#
#   prepare-root.sh ROOT DIRECTORY     copies the kernel and its initial file system to DIRECTORY
set -eu
root=$1 directory=$2

cp "$root"/boot/vmlinuz-* "$directory/vmlinuz"
cp "$root"/boot/initrd.img-* "$directory/initrd.img"

# The partition with swap is on the second disk.
cat >"$root/etc/fstab" <<'FSTAB'
/dev/vda / ext4 errors=remount-ro 0 1
/dev/vdb1 none swap sw,nofail,x-systemd.device-timeout=60s 0 0
FSTAB

# QEMU's user network, without a way out.
cat >"$root/etc/systemd/network/10-machine.network" <<'NETWORK'
[Match]
Type=ether
Kind=!*

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
NETWORK
# A kernel in user mode has another name for its card than QEMU's machine.
printf '[Match]\nDriver=uml-vector\n\n[Link]\nName=eth0\n' >"$root/etc/systemd/network/10-machine.link"
printf 'nameserver 10.0.2.3\n' >"$root/etc/resolv.conf"
echo machine >"$root/etc/hostname"
: >"$root/etc/machine-id"
printf '127.0.0.1 localhost\n127.0.1.1 machine\n' >"$root/etc/hosts"

# An emulated processor makes everything slow: systemd gives units more time.
mkdir -p "$root/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultTimeoutStartSec=600s\nDefaultDeviceTimeoutSec=300s\n' >"$root/etc/systemd/system.conf.d/patience.conf"

# ssh waits neither for names nor for a slow key exchange.
printf 'UseDNS no\nPermitRootLogin prohibit-password\nLoginGraceTime 600\n' >"$root/etc/ssh/sshd_config.d/machine.conf"

chroot "$root" systemctl -q enable systemd-networkd.service ssh.service
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service man-db.timer
for unit in firewalld ufw nftables NetworkManager NetworkManager-wait-online auditd; do
    ! [ -e "$root/lib/systemd/system/$unit.service" ] || chroot "$root" systemctl -q disable $unit.service
done
