#!/bin/sh
# Before the kubelet starts: what it keeps of authorities that were replaced goes (bundler certs rotate).
#
# The kubelet writes whom it believes into its own kubeconfig, and its certificates, once: both are as
# they were when it joined. Certificates that another authority signed than the one that signs now are
# removed, and the kubelet asks for new ones by its bootstrap token. Pods run on meanwhile.
#
# Usage: kubelet-authorities.sh [--is-due]
#
#   --is-due   change nothing: exit code 0 if certificates would be removed, else 1
#
# Exit code: otherwise 0, always: a kubelet with what it has is better than none.
# DESTDIR, when set, is put before the paths of installed files.
set -u
umask 077
LC_ALL=C
export LC_ALL
etc=${DESTDIR:-}/etc/kubernetes
kubelet_root=$(sed -n "s/^KUBELET_ROOT='\(.*\)'\$/\1/p" "${DESTDIR:-}/opt/k8s/bundle/node.env")
pki=${DESTDIR:-}$kubelet_root/pki

main() {
    if is_foreign client || is_foreign server; then
        echo "this node's certificates are of an authority that signs no more: asking for new ones"
        rm -f "$pki"/kubelet-client-*.pem "$pki"/kubelet-server-*.pem "$etc/kubelet.kubeconfig"
    elif [ -f "$etc/kubelet.kubeconfig" ] && [ "$(believed_in kubelet)" != "$(believed_in bootstrap)" ]; then
        believe && echo "believes the authorities of bootstrap.kubeconfig from now on"
    fi
}

# is_foreign client|server: signed by another than ca-signing.crt; whether it ended is the kubelet's to see.
is_foreign() {
    [ -f "$pki/kubelet-$1-current.pem" ] && [ -f "$etc/pki/ca-signing.crt" ] || return 1
    # 20: its issuer is not there; 7: another key signed; 30: another key is named
    openssl verify -partial_chain -CAfile "$etc/pki/ca-signing.crt" "$pki/kubelet-$1-current.pem" 2>&1 |
        grep -q -e '^error 20 ' -e '^error 7 ' -e '^error 30 '
}

believed_in() { sed -n 's/^ *certificate-authority-data: *//p' "$etc/$1.kubeconfig"; }

believe() {
    wanted=$(believed_in bootstrap)
    [ -n "$wanted" ] || return 1
    sed "s|^\( *certificate-authority-data: *\).*|\1$wanted|" "$etc/kubelet.kubeconfig" >"$etc/kubelet.kubeconfig.new" &&
        mv -f "$etc/kubelet.kubeconfig.new" "$etc/kubelet.kubeconfig"
}

if [ "${1:-}" = --is-due ]; then
    is_foreign client || is_foreign server
    exit
fi
main
exit 0
