#!/bin/sh
# After the start of flannel: give dockerd's bridge an address in this node's subnet.
#
# The subnet is in /run/flannel/subnet.env. dockerd reads /run/flannel/docker when it starts, and is restarted if
# its bridge has another address. The kubelet waits for docker-ready.
# DESTDIR is prepended to the paths of files.
set -eu
run=${DESTDIR:-}/run/flannel

value_of() { sed -n "s/^$1=//p" "$run/subnet.env"; }

bridge=$(value_of FLANNEL_SUBNET)
[ -n "$bridge" ] || {
    echo "$run/subnet.env has no FLANNEL_SUBNET" >&2
    exit 1
}
case $(value_of FLANNEL_IPMASQ) in true) masquerade=false ;; *) masquerade=true ;; esac
printf 'DOCKER_NETWORK_OPTIONS=--bip=%s --ip-masq=%s --mtu=%s\n' \
    "$bridge" "$masquerade" "$(value_of FLANNEL_MTU)" >"$run/docker.new"
mv -f "$run/docker.new" "$run/docker"
ip -4 -o address show dev docker0 2>/dev/null | grep -qF " $bridge " || systemctl try-restart docker.service
: >"$run/docker-ready"
