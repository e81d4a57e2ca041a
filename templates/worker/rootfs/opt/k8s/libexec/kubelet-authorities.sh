#!/bin/sh
# Before the kubelet starts: remove its files of replaced CAs (bundler certs rotate).
#
# The kubelet writes its kubeconfig, with the trusted CAs, and its certificates only when it joins.
# Certificates that the current CA has not signed are removed, and the kubelet requests new ones with
# its bootstrap token. Pods keep running meanwhile.
#
# Usage: kubelet-authorities.sh [--is-due]
#
#   --is-due   change nothing: exit code 0 if certificates would be removed, otherwise 1
#
# Exit code without it: always 0, because a kubelet with old files is better than none.
# DESTDIR, if set, is a prefix of the paths of installed files.
set -u
umask 077
LC_ALL=C
export LC_ALL
etc=${DESTDIR:-}/etc/kubernetes
kubelet_root=$(sed -n "s/^KUBELET_ROOT='\(.*\)'\$/\1/p" "${DESTDIR:-}/opt/k8s/bundle/node.env")
pki=${DESTDIR:-}$kubelet_root/pki

main() {
    if is_of_other_ca client || is_of_other_ca server; then
        echo "the certificates of this node are of a previous CA: requesting new ones"
        rm -f "$pki"/kubelet-client-*.pem "$pki"/kubelet-server-*.pem "$etc/kubelet.kubeconfig"
    elif [ -f "$etc/kubelet.kubeconfig" ] && [ "$(trusted_in kubelet)" != "$(trusted_in bootstrap)" ]; then
        trust_bootstrap_cas && echo "now trusts the CAs of bootstrap.kubeconfig"
    fi
}

# is_of_other_ca client|server: not signed by ca-signing.crt. The kubelet itself handles certificates that have ended.
is_of_other_ca() {
    [ -f "$pki/kubelet-$1-current.pem" ] && [ -f "$etc/pki/ca-signing.crt" ] || return 1
    # 20: unknown issuer; 7: signed by another key; 30: names another key
    openssl verify -partial_chain -CAfile "$etc/pki/ca-signing.crt" "$pki/kubelet-$1-current.pem" 2>&1 |
        grep -q -e '^error 20 ' -e '^error 7 ' -e '^error 30 '
}

trusted_in() { sed -n 's/^ *certificate-authority-data: *//p' "$etc/$1.kubeconfig"; }

trust_bootstrap_cas() {
    wanted=$(trusted_in bootstrap)
    [ -n "$wanted" ] || return 1
    sed "s|^\( *certificate-authority-data: *\).*|\1$wanted|" "$etc/kubelet.kubeconfig" \
        >"$etc/kubelet.kubeconfig.new" &&
        mv -f "$etc/kubelet.kubeconfig.new" "$etc/kubelet.kubeconfig"
}

if [ "${1:-}" = --is-due ]; then
    is_of_other_ca client || is_of_other_ca server
    exit
fi
main
exit 0
