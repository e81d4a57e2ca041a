#!/bin/sh
# Inside the builder container: the root file system of a lab host, as /lab/rootfs/host.tar.
#
#   make-host-root.sh        a minimal Debian 12 with systemd and what the preflight asks for
set -eu
. /scripts/builder-apt.sh
use_host_apt
apt-get install -qq -y mmdebstrap >/dev/null 2>&1
packages=systemd,systemd-sysv,dbus,iproute2,iptables,conntrack,ipset,ipvsadm,kmod,procps,iputils-ping
packages=$packages,curl,openssl,ca-certificates,nginx-light,libnginx-mod-stream,keepalived,socat,ethtool
packages=$packages,nftables,faketime,mount,util-linux,libdevmapper1.02.1,libsystemd0,libseccomp2
rm -rf /lab/rootfs/host.new.tar
# shellcheck disable=SC2016,SC2046 # mmdebstrap expands the hooks' $1; one word a file
mmdebstrap --quiet --mode=root --variant=minbase --include=$packages \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Check-Valid-Until "false"' \
    --customize-hook='cp -r /scripts/host/. "$1/"' \
    --customize-hook='mkdir -p "$1/usr/local/lib/lab"; if [ -f /lab/host/runc ]; then cp /lab/host/runc "$1/usr/local/lib/lab/runc"; fi' \
    --customize-hook='chroot "$1" systemctl enable lab-fixups.service' \
    --customize-hook='chroot "$1" systemctl mask nginx.service keepalived.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer systemd-udevd.service getty.target console-getty.service systemd-modules-load.service' \
    --customize-hook='rm -f "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"; : >"$1/etc/machine-id"' \
    bookworm /lab/rootfs/host.new.tar $(find /etc/apt/sources.list /etc/apt/sources.list.d -type f 2>/dev/null) </dev/null
mv /lab/rootfs/host.new.tar /lab/rootfs/host.tar
