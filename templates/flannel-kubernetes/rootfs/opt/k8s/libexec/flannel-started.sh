#!/bin/sh
# After the start of flannel: write the CNI configuration for this node's subnet.
#
# The subnet is in /run/flannel/subnet.env. DESTDIR is prepended to the paths of files.
set -eu
subnet_file=${DESTDIR:-}/run/flannel/subnet.env
target=${DESTDIR:-}/etc/cni/net.d/10-flannel.conflist

value_of() { sed -n "s/^$1=//p" "$subnet_file"; }

# 10.200.3.1/24 (the address of the bridge) → 10.200.3.0/24
subnet=$(value_of FLANNEL_SUBNET | awk -F'[./]' '{ printf "%s.%s.%s.%s/%s\n", $1, $2, $3, $4 - 1, $5 }')
[ -n "$subnet" ] || {
    echo "$subnet_file has no FLANNEL_SUBNET" >&2
    exit 1
}
mkdir -p "${target%/*}"
cat >"$target.new" <<CONFLIST
{
  "cniVersion": "0.3.1",
  "name": "flannel",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "mtu": $(value_of FLANNEL_MTU),
      "isDefaultGateway": true,
      "hairpinMode": true,
      "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni/networks",
        "ranges": [[{"subnet": "$subnet"}]]
      }
    },
    {
      "type": "portmap",
      "capabilities": {"portMappings": true}
    }
  ]
}
CONFLIST
if cmp -s "$target.new" "$target"; then rm -f "$target.new"; else mv -f "$target.new" "$target"; fi
