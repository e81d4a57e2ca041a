#!/bin/sh
# Start the kubelet when this node has a client certificate; request one first if it has none.
#
# Usage: kubelet-join.sh COMMAND...     get a certificate, then run COMMAND (the kubelet) in place of this script
#        kubelet-join.sh --is-due       change nothing: exit code 0 if certificates are of a replaced CA, otherwise 1
#
# A node joins with the token in bootstrap.kubeconfig. Control planes accept a token once, for one key. So the key is
# stored before the request is sent, and kept until its certificate is here: after a kill at any moment the next
# start continues with the same request. (The kubelet itself would make a new key for each request.)
#
# If the CA was replaced (bundler certs rotate), the former certificate authenticates the request for the next one.
# Pods keep running meanwhile.
#
# Before the kubelet starts, /run/kubelet-join/resolv.conf becomes a link to the file of name servers that pods are
# given on this host.
#
# Each reason to wait is printed once; /run/kubelet-join/reason has the current one.
# DESTDIR, if set, is a prefix of the paths of installed files.
set -u
bundle=${DESTDIR:-}/opt/k8s/bundle
# shellcheck source=/dev/null # of the installed bundle
. "$bundle/lib/core/environment.sh" || exit 1
# shellcheck disable=SC1091 # rendered for each node
. "$bundle/node.env" || exit 1
# shellcheck source=/dev/null # a part of the installed bundle
. "$bundle/lib/core/resolver.sh" || exit 1
etc=${DESTDIR:-}/etc/kubernetes
pki=${DESTDIR:-}$KUBELET_ROOT/pki
run=${DESTDIR:-}/run/kubelet-join
current=$pki/kubelet-client-current.pem
next_key=$pki/kubelet-join.key
RENEWAL_LIMIT=15 # seconds: a kubelet that is away for 40 s is not Ready any more

main() {
    umask 077
    mkdir -p "$pki" "$run" || exit 1
    is_usable "$current" || use_earlier_certificate
    write_kubeconfig
    accepted=yes
    if is_usable "$current" && is_of_other_ca "$current"; then renew_certificate; fi
    until [ "$accepted" = yes ] && is_usable "$current"; do
        if request_certificate bootstrap; then accepted=yes; else sleep 1; fi
    done
    remove_certificates_of_other_cas
    remove_damaged_server_certificate
    rm -f "$run/reason"
    ln -sf "$(choose_resolver "${DESTDIR:-}")" "$run/resolv.conf" || exit 1
    umask 022
    exec "$@"
}

# is_usable FILE: a certificate that has not ended, and its key.
is_usable() { [ -s "$1" ] && openssl x509 -checkend 0 -noout -in "$1" >/dev/null 2>&1 && is_pair "$1"; }

# is_pair FILE: a certificate and its key.
is_pair() {
    public_key=$(openssl x509 -pubkey -noout -in "$1" 2>/dev/null) &&
        [ "$public_key" = "$(openssl pkey -pubout -in "$1" 2>/dev/null)" ]
}

# is_of_other_ca FILE: not signed by ca-signing.crt.
is_of_other_ca() {
    [ -f "$1" ] && [ -f "$etc/pki/ca-signing.crt" ] || return 1
    # 20: unknown issuer; 7: signed by another key; 30: names another key
    openssl verify -partial_chain -CAfile "$etc/pki/ca-signing.crt" "$1" 2>&1 |
        grep -q -e '^error 20 ' -e '^error 7 ' -e '^error 30 '
}

# After a power cut the newest file may be damaged. The one before is valid for some weeks more.
use_earlier_certificate() {
    # names contain their time, in an order that sorts
    for file in "$pki"/kubelet-client-[0-9]*.pem; do
        ! is_usable "$file" || link_certificate "$file"
    done
}

link_certificate() {
    rm -f "$pki/kubelet-client-updated.pem"
    ln -s "$1" "$pki/kubelet-client-updated.pem" && mv -f "$pki/kubelet-client-updated.pem" "$current"
}

# With the server and the CAs of bootstrap.kubeconfig, which the bundle has.
write_kubeconfig() {
    print_kubeconfig >"$etc/kubelet.kubeconfig.new" || exit 1
    if is_same "$etc/kubelet.kubeconfig.new" "$etc/kubelet.kubeconfig"; then
        rm -f "$etc/kubelet.kubeconfig.new"
    else
        mv -f "$etc/kubelet.kubeconfig.new" "$etc/kubelet.kubeconfig" || exit 1
        echo "wrote kubelet.kubeconfig, with the server and the CAs of bootstrap.kubeconfig"
    fi
}

# Hosts may have no cmp.
is_same() { [ "$(cat "$1" 2>/dev/null)" = "$(cat "$2" 2>/dev/null)" ]; }

print_kubeconfig() {
    cat <<KUBECONFIG
apiVersion: v1
kind: Config
clusters:
- name: default-cluster
  cluster:
$(sed -n 's/^ *\(certificate-authority-data: .*\)/    \1/p; s/^ *\(server: .*\)/    \1/p' "$etc/bootstrap.kubeconfig")
users:
- name: default-auth
  user:
    client-certificate: $current
    client-key: $current
contexts:
- name: default-context
  context:
    cluster: default-cluster
    namespace: default
    user: default-auth
current-context: default-context
KUBECONFIG
}

# Controller managers are replaced one by one, so the next certificate may be of the former CA too. Then the kubelet
# starts with it, and kube-certs.timer restarts the kubelet later.
renew_certificate() {
    echo "the certificate of this node is of a previous CA: requesting a new one"
    deadline=$(($(date +%s) + RENEWAL_LIMIT)) pause=1
    while is_of_other_ca "$current" && [ "$(date +%s)" -lt "$deadline" ]; do
        request_certificate kubelet && continue
        if is_refused "$answer"; then
            accepted=no # the former CA is not trusted any more
            return 0
        fi
        sleep "$pause"
        pause=$((pause + 1))
    done
    ! is_of_other_ca "$current" ||
        echo "no certificate of the current CA after $RENEWAL_LIMIT s: starting with this one"
}

# Each also deletes the key of a certificate that no server accepts any more. The kubelet requests a certificate for
# serving by itself.
remove_certificates_of_other_cas() {
    for file in "$pki"/kubelet-client-[0-9]*.pem; do
        if is_of_other_ca "$file" && ! is_same "$file" "$current"; then rm -f "$file"; fi
    done
    if is_of_other_ca "$pki/kubelet-server-current.pem"; then rm -f "$pki"/kubelet-server-*.pem; fi
}

# The kubelet writes this one without flushing it to the disk. It does not start when a power cut left it empty or in
# part, and requests another one when there is none.
remove_damaged_server_certificate() {
    if [ -f "$pki/kubelet-server-current.pem" ] && ! is_pair "$pki/kubelet-server-current.pem"; then
        echo "kubelet-server-current.pem is damaged: removing it, so that the kubelet requests another one"
        rm -f "$pki"/kubelet-server-*.pem
    fi
}

# request_certificate bootstrap|kubelet: one step, authenticated by that kubeconfig. Returns 0 if it stored a
# certificate; `answer` is what the API server said.
request_certificate() {
    ensure_key || {
        wait_for "cannot make a key in $pki: $answer"
        return 1
    }
    name=node-csr-$(openssl pkey -in "$next_key" -pubout -outform DER | sha256sum | cut -c1-64)
    if answer=$(kube "$1" get certificatesigningrequest "$name" -o \
        'jsonpath={range .status.conditions[*]}{.type}{" "}{end}{.status.certificate}' 2>&1); then
        read_answer
    elif is_refused "$answer"; then
        wait_for "$(explain_refusal)"
        return 1
    else
        case $answer in *'(NotFound)'*) create_request "$1" ;; *) wait_for "$(last_line "$answer")" ;; esac
        return 1
    fi
}

# A key that is lost after its request was approved could not be replaced: it is on the disk before the request is sent.
ensure_key() {
    openssl pkey -noout -in "$next_key" 2>/dev/null && return 0
    answer=$(openssl ecparam -name prime256v1 -genkey -noout -out "$next_key.new" 2>&1) &&
        sync_path "$next_key.new" && mv -f "$next_key.new" "$next_key" && sync_path "$pki"
}

create_request() {
    cat >"$run/request.cnf" <<CONFIGURATION
[req]
prompt = no
distinguished_name = subject
[subject]
O = system:nodes
CN = system:node:$NODE
CONFIGURATION
    request=$(openssl req -new -sha256 -key "$next_key" -config "$run/request.cnf" | base64 | tr -d '\n')
    if answer=$(
        kube "$1" create --validate=false -f - 2>&1 <<MANIFEST
apiVersion: $CSR_API
kind: CertificateSigningRequest
metadata:
  name: $name
spec:
  signerName: kubernetes.io/kube-apiserver-client-kubelet
  usages: [digital signature, key encipherment, client auth]
  request: $request
MANIFEST
    ); then
        echo "requested a client certificate: $name"
    else
        wait_for "$(last_line "$answer")"
    fi
}

# The answer has the types of the conditions, then the certificate.
read_answer() {
    case $answer in
        *' LS0t'*)
            store_certificate "${answer##* }"
            return $?
            ;;
        *Denied* | *Failed*) wait_for "its request was denied; to try again: kubectl delete csr $name" ;;
        *Approved*) wait_for "its request $name is approved, and the controller manager has not signed it yet" ;;
        *)
            wait_for "its request $name is not approved yet: journalctl -u kube-csr-approver on a control plane" \
                "says why. If this host was installed again: bundler tokens renew $NODE"
            ;;
    esac
    return 1
}

store_certificate() {
    file=$pki/kubelet-client-$(date +%Y-%m-%d-%H-%M-%S).pem
    {
        printf '%s' "$1" | base64 -d
        cat "$next_key"
    } >"$file.new"
    if ! is_usable "$file.new"; then
        rm -f "$file.new"
        wait_for "the certificate in $name has ended or is of another key, or cannot be written to $pki"
        return 1
    fi
    sync_path "$file.new"
    mv -f "$file.new" "$file" && link_certificate "$file" && sync_path "$pki" || return 1
    rm -f "$next_key"
    echo "got a client certificate: $file"
}

# Before coreutils 8.24 sync ignores paths and writes everything.
sync_path() { sync "$1" 2>/dev/null; }

kube() {
    kubeconfig=$etc/$1.kubeconfig
    shift
    HOME=$run kubectl --kubeconfig "$kubeconfig" --request-timeout=10s "$@"
}

is_refused() { case $1 in *'You must be logged in'* | *Unauthorized*) ;; *) return 1 ;; esac }
last_line() { printf '%s\n' "$1" | tail -n 1; }

# The API server answers 401, whatever the reason is.
explain_refusal() {
    expires=$(sed -n "s/^TOKEN_EXPIRES='\{0,1\}\([0-9]*\).*/\1/p" "$bundle/state.env")
    if [ "${expires:-0}" -le "$(date +%s)" ]; then
        echo "the bootstrap token of this bundle ended $((($(date +%s) - expires) / 86400)) days ago. Fix:" \
            "bundler build, then install a control plane's bundle and this host's"
    else
        echo "the API servers refuse the bootstrap token of this bundle: it was used or revoked, or no control plane" \
            "has a bundle with it yet. Fix: install a control plane's bundle of the same build; if it is installed:" \
            "bundler tokens renew $NODE, bundler build, then install a control plane's bundle and this host's"
    fi
}

# wait_for REASON...
wait_for() {
    [ "$*" != "$(cat "$run/reason" 2>/dev/null)" ] || return 0
    echo "waiting: $*"
    printf '%s\n' "$*" >"$run/reason"
}

if [ "${1:-}" = --is-due ]; then
    is_of_other_ca "$current" || is_of_other_ca "$pki/kubelet-server-current.pem"
    exit
fi
[ $# -gt 0 ] || {
    echo "usage: kubelet-join.sh COMMAND..." >&2
    exit 2
}
main "$@"
