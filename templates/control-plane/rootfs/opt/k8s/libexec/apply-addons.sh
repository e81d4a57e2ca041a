#!/bin/sh
# Apply every manifest in /etc/kubernetes/addons, however long the API takes to come up.
#
# Every control-plane node does the same, at the same time perhaps: what one loses to another (a
# conflict) it tries again. Ends only when all is applied.
#
# API_LOCAL   the API server to talk to (default: the kubeconfig's)
# DESTDIR     put before the paths of installed files
# MAX_PAUSE   longest pause between two tries, in seconds (default 10)
set -u
PATH=$PATH:/opt/k8s/bin
export PATH
addons=${DESTDIR:-}/etc/kubernetes/addons
revoked=${DESTDIR:-}/etc/kubernetes/revoked-tokens
kubeconfig=${DESTDIR:-}/etc/kubernetes/admin.kubeconfig
pki=${DESTDIR:-}/etc/kubernetes/pki
reported=''

main() {
    [ -d "$addons" ] || { echo "there is no directory $addons: nothing to apply"; exit 0; }
    attempt_until_done "the API server ${API_LOCAL:-} to be ready" is_ready
    attempt_until_done "the manifests in $addons to be accepted" apply_all
    echo "applied all manifests in $addons"
    attempt_until_done "authorities that are believed no more to be forgotten" forget_authorities
    [ ! -f "$revoked" ] || attempt_until_done "the tokens in $revoked to be deleted" revoke_tokens
}

# attempt_until_done WHAT FUNCTION: tries for ever; says what it waits for whenever that changes.
attempt_until_done() {
    pause=2
    until problem=$("$2" 2>&1); do
        problem=$(printf '%s' "$problem" | tail -n 3 | tr '\n' ' ')
        if [ "$problem" != "$reported" ]; then
            echo "waiting for $1: $problem"
            reported=$problem
        fi
        sleep "$pause"
        pause=$((pause + 2))
        [ "$pause" -le "${MAX_PAUSE:-10}" ] || pause=${MAX_PAUSE:-10}
    done
    [ -z "$problem" ] || printf '%s\n' "$problem"
}

kube() {
    kubectl --kubeconfig "$kubeconfig" ${API_LOCAL:+--server "$API_LOCAL"} --request-timeout=15s "$@"
}

# /readyz came with Kubernetes 1.16. Only where there is none does /healthz tell: a server may be
# healthy and yet not ready.
is_ready() {
    answer=$(kube get --raw /readyz 2>&1)
    case $answer in *'(NotFound)'*) answer=$(kube get --raw /healthz 2>&1) ;; esac
    [ "$answer" = ok ] || { printf '%s\n' "$answer"; return 1; }
}

# Validation on this side would fetch the API's whole schema; the server checks types anyway.
# Only what changed is worth a line.
apply_all() {
    output=$(kube apply --validate=false -f "$addons" 2>&1)
    code=$?
    printf '%s\n' "$output" | grep -v ' unchanged$'
    return "$code"
}

# Here API servers say whom extension servers shall believe: from 1.17 on they only ever add to it,
# and make it anew within a minute where it is gone; earlier ones write it anew when they start.
forget_authorities() {
    told=$(kube -n kube-system get configmap extension-apiserver-authentication --ignore-not-found \
        -o 'jsonpath={.data.client-ca-file}{.data.requestheader-client-ca-file}' 2>&1) || { printf '%s\n' "$told"; return 1; }
    strangers=$({ cat "$pki/ca.crt" "$pki/front-proxy-ca.crt"; echo; echo told; printf '%s\n' "$told"; } | awk '
        /^told$/ { told = 1 }
        /-----BEGIN/ { body = ""; next }
        /-----END/ { if (told && !(body in believed)) strangers++; believed[body] = 1; next }
        { body = body $0 }
        END { print strangers + 0 }')
    [ "$strangers" = 0 ] || kube -n kube-system delete configmap extension-apiserver-authentication --ignore-not-found
}

# With what is in this file no host can join any more.
revoke_tokens() {
    names=$(sed '/^#/d' "$revoked")
    [ -n "$names" ] || return 0
    # shellcheck disable=SC2086 # a list of names
    kube -n kube-system delete secret --ignore-not-found $names
}

main "$@"
