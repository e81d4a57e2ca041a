#!/bin/sh
# Renew the tokens of service accounts that do not end, after stage `issue` of bundler certs rotate: those in Secrets
# that the former key signed.
#
# Usage: renew-service-accounts.sh             as root, on a control plane; again until nothing is left
#
# 1. Until Kubernetes 1.23 every service account has such a Secret, and until 1.20 pods get its token. The service
#    account gets a second Secret, with a token of the present key, for pods that are created from now on. Both tokens
#    are accepted. The script lists the pods that hold the former one: restart them (kubectl rollout restart).
# 2. A later run deletes the former Secret, when no pod uses it any more.
# 3. A Secret that somebody created is renewed by that person, because its token may be used anywhere: the script
#    prints the command. From that moment the former token is refused.
#
# Exit code: 0 nothing is left, 1 it failed, 2 wrong usage, 4 something is left for you to do.
# DESTDIR    prepended to the paths of installed files
# shellcheck disable=SC2153,SC2154 # node.env and the parts set variables
set -u
umask 077
LC_ALL=C
prefix=${DESTDIR:-}
PATH=$prefix/opt/k8s/bin:${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
here=$prefix/opt/k8s/bundle
for part in core/environment core/common coordination/keys; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 1
done
pki=$prefix/etc/kubernetes/pki

main() {
    [ $# -eq 0 ] || {
        sed -n '2,/^# DESTDIR/s/^# \{0,1\}//p' "$0"
        exit 2
    }
    # shellcheck disable=SC1091 # rendered for each node
    . "$here/node.env" || exit 1
    work=$(mktemp -d) || exit 1
    trap 'rm -rf "$work"' EXIT
    trap 'exit 143' HUP INT TERM
    print_key_ids "$prefix/etc/kubernetes" >"$work/keys" || die 1 "the keys in $prefix/etc/kubernetes cannot be read"
    signs=$(text_field "$work/keys" TOKENS_SIGNED_WITH)
    former=$(list_lost "$(text_field "$work/keys" TOKENS_ACCEPTED)" "$signs")
    [ -n "$former" ] || die 0 "one key only signs tokens and is accepted: there is nothing to renew"
    check_signers
    list_tokens_of "$pki/sa.pub" "$former" >"$work/former" || die 1 "$(tail -n 1 "$work/tokens.log")"
    list_objects
    left=no suffix=$(printf '%s' "$signs" | cksum | cut -d ' ' -f 1)
    while read -r namespace secret; do renew_secret; done <"$work/former"
    case $KUBERNETES_VERSION in
        1.14.*) say "restart kube-controller-manager on every control plane: in 1.14 it holds such tokens" ;;
    esac
    [ "$left" = no ] || die 4 "run this again when that is done: it deletes the replaced Secrets"
    say "no Secret holds a token of the former key"
}

kube() { kube_at "$ADDRESS" "$API_PORT" "$@"; }

# Every controller manager must have the present key, or a new token may be one of the former key.
check_signers() {
    list_control_planes >"$work/control-planes"
    while read -r name server; do
        read_loaded_keys "$name" "$server" || die 1 "$loaded_reason"
        [ "$loaded_signs" = "$signs" ] ||
            die 1 "the API server of $name signs with another key: install its bundle first"
        kcm_start=$(print_manager_start "$name" "$server")
        [ -n "$kcm_start" ] || die 1 "the controller manager of $name does not answer"
        [ "${kcm_start%.*}" -ge "${loaded_since%.*}" ] ||
            die 1 "the controller manager of $name still runs with the former key: run this again in a minute"
    done <"$work/control-planes"
}

# Service accounts with their Secrets, Secrets that were replaced, and the pods of each Secret.
list_objects() {
    templates=$here/lib/coordination
    list_as serviceaccounts service-accounts >"$work/accounts"
    list_as secrets replaced-tokens --field-selector type=kubernetes.io/service-account-token >"$work/replaced"
    list_as pods pod-secrets >"$work/pods"
}

# list_as KIND TEMPLATE [OPTION...]
list_as() {
    kind=$1 template=$templates/$2.gotemplate
    shift 2
    kube get "$kind" --all-namespaces -o "go-template-file=$template" "$@" ||
        die 1 "the API server of this host does not list $kind"
}

# Renew $namespace/$secret as far as this can be done without taking a token away from anybody.
renew_secret() {
    if grep -qxF "$namespace $secret" "$work/replaced"; then
        remove_replaced
        return $?
    fi
    account=$(awk -v namespace="$namespace" -v secret="$secret" '
        $1 == namespace { for (i = 3; i <= NF; i++) if ($i == secret) { print $2, i - 3; exit } }' "$work/accounts")
    if [ -z "$account" ]; then
        left=yes
        patch='[{"op":"remove","path":"/data/token"}]'
        say "$namespace/$secret: somebody created it. Where its token is used, be ready to give the new one; then:" \
            "kubectl -n $namespace patch secret $secret --type=json -p '$patch'"
        return 0
    fi
    replace_secret "${account% *}" "${account#* }"
}

# replace_secret ACCOUNT POSITION: a killed run goes on where it was, because the new Secret's name depends on the key
# only. The former Secret is not deleted in the same run: a pod may be created with it at this moment.
replace_secret() {
    new=$1-token-$suffix left=yes
    printf '%s\n' "apiVersion: v1" "kind: Secret" "type: kubernetes.io/service-account-token" "metadata:" \
        "  namespace: $namespace" "  name: $new" "  annotations:" "    kubernetes.io/service-account.name: \"$1\"" \
        >"$work/new.yaml"
    answer=$(kube create -f "$work/new.yaml" 2>&1) || case $answer in
        *AlreadyExists*) ;;
        *) die 1 "$namespace/$new: $answer" ;;
    esac
    tries=0
    until [ -n "$(kube -n "$namespace" get secret "$new" -o 'jsonpath={.data.token}' | cut -c1-1)" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || die 1 "$namespace/$new: the controller manager has made no token within a minute"
        sleep 1
    done
    # The test refuses the patch if somebody changed the service account in between.
    kube -n "$namespace" patch serviceaccount "$1" --type=json --patch "[
        {\"op\":\"test\",\"path\":\"/secrets/$2/name\",\"value\":\"$secret\"},
        {\"op\":\"replace\",\"path\":\"/secrets/$2/name\",\"value\":\"$new\"}]" >/dev/null ||
        die 1 "the service account $namespace/$1 was changed meanwhile: run this again"
    kube -n "$namespace" annotate --overwrite secret "$secret" "bundler/replaced-by=$new" >/dev/null ||
        die 1 "$namespace/$secret: cannot be annotated: run this again"
    say "$namespace/$1: new pods get the token in $new"
    report_pods
}

# Print the pods that use the replaced Secret; returns 1 if there are none.
report_pods() {
    pods=$(awk -v namespace="$namespace" -v secret="$secret" '
        $1 == namespace { for (i = 3; i <= NF; i++) if ($i == secret) { printf "%s ", $2; break } }' "$work/pods")
    [ -n "$pods" ] || return 1
    left=yes
    say "$namespace/$secret: restart the pods that hold its token: $pods"
}

# Delete the replaced Secret, unless a pod uses it.
remove_replaced() {
    ! report_pods || return 0
    kube -n "$namespace" delete secret "$secret" --ignore-not-found >/dev/null ||
        die 1 "$namespace/$secret: cannot be deleted"
    say "$namespace/$secret: deleted, no pod uses it"
}

main "$@"
