#!/bin/sh
# Inside the builder container: the root file system of a lab host, as /lab/rootfs/host.tar, and the
# packages that bundles bring to it, as /lab/packages/*.deb.
#
#   make-host-root.sh        Debian 12 with what is Essential or Required, and systemd as its init
set -eu
. /scripts/builder-apt.sh
use_host_apt
apt-get install -qq -y mmdebstrap >/dev/null 2>&1
# faketime is the tests'; the libraries are those of Debian's dockerd and runc, which upstream links statically.
minimal=systemd-sysv,faketime,libdevmapper1.02.1,libseccomp2
brought='nginx libnginx-mod-stream keepalived iproute2 openssl iptables conntrack ipset ipvsadm kmod curl iputils-ping socat ethtool'
rm -rf /lab/rootfs/host.new.tar /lab/packages.new
mkdir -p /lab/packages.new/partial
# shellcheck disable=SC2016,SC2046 # mmdebstrap expands the hooks' variables; one word a file
mmdebstrap --quiet --mode=root --variant=minbase --include=$minimal \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Check-Valid-Until "false"' \
    --customize-hook='cp -r /scripts/host/. "$1/"' \
    --customize-hook='mkdir -p "$1/usr/local/lib/lab"; if [ -f /lab/host/runc ]; then cp /lab/host/runc "$1/usr/local/lib/lab/runc"; fi' \
    --customize-hook='chroot "$1" systemctl enable lab-fixups.service' \
    --customize-hook='chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer systemd-udevd.service getty.target console-getty.service systemd-modules-load.service' \
    --customize-hook='rm -f "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"; : >"$1/etc/machine-id"' \
    --customize-hook="APT_CONFIG=\"\$MMDEBSTRAP_APT_CONFIG\" apt-get -qq --yes --no-install-recommends --download-only -o Dir::Cache::archives=/lab/packages.new install $brought >/dev/null" \
    bookworm /lab/rootfs/host.new.tar $(find /etc/apt/sources.list /etc/apt/sources.list.d -type f 2>/dev/null) </dev/null
rm -rf /lab/packages.new/partial /lab/packages.new/lock /lab/packages
mv /lab/packages.new /lab/packages
mv /lab/rootfs/host.new.tar /lab/rootfs/host.tar
