#!/bin/sh
# Apply every manifest in /etc/kubernetes/addons, and the bootstrap tokens of nodes that may join. Wait for the API as
# long as needed.
#
# Every control-plane node does this, possibly at the same time: after a conflict it tries again. The script
# ends when everything is applied. Each object gets the label bundler/applied-by; after a change of the manifests, what
# has it and is in none of them is deleted.
#
# API_LOCAL   the API server to use (default: the one in the kubeconfig, if the administrator has rights already)
# DESTDIR     prepended to the paths of installed files
# MAX_PAUSE   longest pause between two tries, in seconds (default 10)
# shellcheck disable=SC2034,SC2154 # the parts share the variables
set -u
PATH=$PATH:/opt/k8s/bin
export PATH
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P) || exit 1
addons=${DESTDIR:-}/etc/kubernetes/addons
obsolete=${DESTDIR:-}/etc/kubernetes/obsolete-objects
revoked=${DESTDIR:-}/etc/kubernetes/revoked-tokens
tokens=${DESTDIR:-}/etc/kubernetes/tokens.tsv
manifest=${DESTDIR:-}/etc/kubernetes/bootstrap-tokens.yaml
site_addons=${DESTDIR:-}/etc/kubernetes/site-addons
cleaned=${DESTDIR:-}/var/lib/kube-apply/cleaned # the objects that this host wanted when it deleted the others
kubeconfig=${DESTDIR:-}/etc/kubernetes/admin.kubeconfig
pki=${DESTDIR:-}/etc/kubernetes/pki
proxy_user=bundler:kube-apply # in the audit log
last_problem=''
# shellcheck disable=SC1090,SC1091 # of the installed bundle
. "${DESTDIR:-}/opt/k8s/bundle/lib/core/environment.sh" || exit 1
# shellcheck disable=SC1090,SC1091
. "${DESTDIR:-}/opt/k8s/bundle/lib/core/https.sh" || exit 1
for part in spent-tokens manifest-objects apply-addons-tokens apply-addons-prune; do
    # shellcheck disable=SC1090 # parts of this script
    . "$here/$part.sh" || exit 1
done

main() {
    if [ ! -d "$addons" ]; then
        echo "nothing to apply: there is no directory $addons"
        exit 0
    fi
    retry "the API server ${API_LOCAL:-} to be ready" is_ready
    retry "the administrator to have all rights" ensure_admin_rights
    retry "the manifests in $addons to be accepted" apply_all
    echo "applied all manifests in $addons"
    retry "removed CAs to be deleted from extension-apiserver-authentication" remove_old_cas
    [ ! -f "$tokens" ] || retry "the bootstrap tokens in $tokens" sync_tokens
    # last, because nodes wait for the others
    [ ! -f "$obsolete" ] || retry "the objects in $obsolete to be deleted" delete_obsolete
    retry "objects that left $addons to be deleted" delete_former
}

# retry WHAT FUNCTION: until it succeeds; print what it waits for whenever the reason changes.
retry() {
    pause=2
    until problem=$("$2" 2>&1); do
        problem=$(printf '%s' "$problem" | tail -n 3 | tr '\n' ' ')
        if [ "$problem" != "$last_problem" ]; then
            echo "waiting for $1: $problem"
            last_problem=$problem
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

# Before Kubernetes 1.16 there is no /readyz, and who has no rights is told that it is forbidden. /healthz is used only
# then: a server can be healthy and not ready.
is_ready() {
    answer=$(kube get --raw /readyz 2>&1)
    case $answer in *'(NotFound)'* | *'(Forbidden)'*) answer=$(kube get --raw /healthz 2>&1) ;; esac
    [ "$answer" = ok ] || {
        printf '%s\n' "$answer"
        return 1
    }
}

# The administrator has rights by a ClusterRoleBinding, which nobody can apply without rights. So if it has none, the
# front proxy's certificate, which may name any user and group, writes that one object (docs/adr/0009).
ensure_admin_rights() {
    may=$(kube auth can-i '*' '*' --all-namespaces 2>&1 | tail -n 1)
    case $may in
        yes) return 0 ;;
        no | 'no '*) ;;
        *)
            printf '%s\n' "$may"
            return 1
            ;;
    esac
    host=${API_LOCAL#https://} as=$(printf 'X-Remote-User: %s\r\nX-Remote-Group: %s\r\n_' "$proxy_user" system:masters)
    answer=$(https_put "$addons/cluster-admins.yaml" "${as%_}" "${host%:*}" "${host##*:}" \
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/bundler:cluster-admins" "$pki/ca.crt" \
        "$pki/front-proxy-client.crt" "$pki/front-proxy-client.key")
    case $answer in
        20[01]*) echo "gave all rights to the group in $addons/cluster-admins.yaml" ;;
        *)
            printf '%s\n' "$answer" | head -n 3
            return 1
            ;;
    esac
}

# Validation by kubectl would download the schema of the whole API; the server checks types anyway.
# Unchanged objects are not printed.
apply_all() {
    # Otherwise a bundle that goes back before it has deleted anything would leave what it added.
    is_clean || rm -f "$cleaned"
    objects=$(kubectl label --local --overwrite -f "$addons" "$applied_by" -o json) || return 1
    output=$(printf '%s\n' "$objects" | kube apply --validate=false -f - 2>&1)
    code=$?
    printf '%s\n' "$output" | grep -v ' unchanged$'
    return "$code"
}

# What was applied before objects got their label is deleted by its name. A row names one kind,
# one namespace and one name; anything else that kubectl accepts in their places (all, a list, a pattern, an option)
# is refused. kubectl ignores the namespace "-" for objects that have none, and no namespace has that name.
delete_obsolete() {
    while read -r kind namespace name since; do
        case $kind in '' | '#'*) continue ;; esac
        case $kind$namespace$name in *[!A-Za-z0-9.:-]*) since='' ;; esac
        case "$kind $namespace $name" in [A-Z]*' '[a-z]*' '[A-Za-z]* | [A-Z]*' - '[A-Za-z]*) ;; *) since='' ;; esac
        if [ -z "$since" ]; then
            echo "$obsolete: expected KIND NAMESPACE NAME SINCE, found $kind $namespace $name"
            return 1
        fi
    done <"$obsolete"
    awk '!/^(#|$)/ { print $1, $2, $3 }' "$obsolete" | delete_objects
}

# delete_objects < KIND NAMESPACE NAME: with one program for all of a kind and namespace.
delete_objects() {
    awk '{ at = $1 " " $2; if (!(at in names)) order[++count] = at; names[at] = names[at] " " $3 }
        END { for (i = 1; i <= count; i++) print order[i] names[order[i]] }' | while read -r kind namespace names; do
        # shellcheck disable=SC2086 # several names
        kube -n "$namespace" delete "$kind" $names --ignore-not-found --wait=false </dev/null || return 1
    done
}

# In this ConfigMap API servers publish the CAs that extension servers must trust. From Kubernetes 1.17 on they
# only add CAs, and create the ConfigMap again within a minute after it was deleted; earlier versions write it
# when they start. So it is deleted if it has a CA that is not in the CA files any more.
remove_old_cas() {
    published=$(kube -n kube-system get configmap extension-apiserver-authentication --ignore-not-found \
        -o 'jsonpath={.data.client-ca-file}{.data.requestheader-client-ca-file}' 2>&1) || {
        printf '%s\n' "$published"
        return 1
    }
    unknown=$({
        cat "$pki/ca.crt" "$pki/front-proxy-ca.crt"
        printf '\npublished\n%s\n' "$published"
    } | awk '
        /^published$/ { published = 1 }
        /-----BEGIN/ { body = ""; next }
        /-----END/ { if (!published) trusted[body] = 1; else if (!(body in trusted)) unknown++; next }
        { body = body $0 }
        END { print unknown + 0 }')
    [ "$unknown" = 0 ] ||
        kube -n kube-system delete configmap extension-apiserver-authentication --ignore-not-found
}

main "$@"
