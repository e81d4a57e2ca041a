#!/bin/sh
# Write kube-proxy's configuration before it starts, with a mode that this host supports.
#
# Old versions of kube-proxy fall back to iptables if the kernel has no IPVS; newer ones exit (seen with 1.28),
# and no version falls back from nftables. This script falls back in both cases and says so in the journal;
# verify.sh shows the mode. DESTDIR is prepended to the paths of files.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
source=${DESTDIR:-}/etc/kubernetes/kube-proxy-config.yaml
target=${DESTDIR:-}/run/kube-proxy/config.yaml

# The file exists if the kernel has IPVS, as a module or built in.
has_ipvs() {
    modprobe -a ip_vs ip_vs_rr ip_vs_wrr ip_vs_sh 2>/dev/null || true
    [ -e "${DESTDIR:-}/proc/net/ip_vs" ]
}

# kube-proxy needs Linux 5.13 and the program nft.
has_nftables() {
    uname -r | awk -F. '{ exit !($1 > 5 || $1 == 5 && $2 + 0 >= 13) }' && nft list tables >/dev/null 2>&1
}

wanted=$(sed -n 's/^mode: //p' "$source")
mode=$wanted
case $wanted in
    ipvs) has_ipvs || mode=iptables ;;
    nftables) has_nftables || mode=iptables ;;
esac
[ "$mode" = "$wanted" ] || echo "this host does not support $wanted: kube-proxy uses iptables mode" >&2
sed "s/^mode: .*/mode: $mode/" "$source" >"$target.new"
mv -f "$target.new" "$target"
