#!/bin/sh
# Start keepalived on the interface that has this node's address.
#
# Usage: keepalived-start.sh FLAG...     run by kube-keepalived.service; it ends with exec keepalived FLAG...
#
# The name of an interface is a fact of one host: eth0 here may be ens3 there. So /etc/kube-keepalived/keepalived.conf
# names none, unless cluster.yaml does, and what keepalived reads is written to /run at every start.
# DESTDIR, if set, is prepended to the paths of installed files.
set -u
prefix=${DESTDIR:-}
run=$prefix/run/kube-keepalived
# shellcheck source=/dev/null # rendered for each node
. "$prefix/opt/k8s/bundle/node.env" || exit 1

interface=$VIP_INTERFACE
[ -n "$interface" ] || interface=$(ip -4 -o address show | awk -v own="$ADDRESS" '
    { sub(/\/.*/, "", $4) }
    $4 == own && $2 != "lo" { print $2; exit }')
if [ -z "$interface" ]; then
    echo "keepalived-start.sh: no interface has this node's address $ADDRESS. Fix: configure the address" \
        "(ip -4 address), or set the node's interface in cluster.yaml" >&2
    exit 1
fi
echo "keepalived-start.sh: the endpoint's address goes to $interface" >&2
mkdir -p "$run" || exit 1
sed "s/INTERFACE/$interface/" "$prefix/etc/kube-keepalived/keepalived.conf" >"$run/keepalived.conf.new" &&
    mv -f "$run/keepalived.conf.new" "$run/keepalived.conf" || exit 1
exec keepalived "$@" --use-file="$run/keepalived.conf"
