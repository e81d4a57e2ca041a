# The deletion of what kube-apply applied before and is no longer in its manifests, for apply-addons.sh.
# needs: addons applied_by cleaned object_row site_addons, and the functions delete_objects, list_manifest_objects and
# name_groups
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# The API's name of each kind that bundler applies, with its group: other groups have kinds of the same names.
# Without Namespaces: what others put into them would go too.
applied_kinds='
    APIService apiservices.apiregistration.k8s.io
    ClusterRole clusterroles.rbac.authorization.k8s.io
    ClusterRoleBinding clusterrolebindings.rbac.authorization.k8s.io
    ConfigMap configmaps
    Deployment deployments.apps
    Lease leases.coordination.k8s.io
    NetworkPolicy networkpolicies.networking.k8s.io
    Role roles.rbac.authorization.k8s.io
    RoleBinding rolebindings.rbac.authorization.k8s.io
    RuntimeClass runtimeclasses.node.k8s.io
    Secret secrets
    Service services
    ServiceAccount serviceaccounts
'

# Whether this host has deleted the others already. Sets wanted, the objects of the manifests.
is_clean() {
    wanted=$(list_manifest_objects "$addons") || return 2
    [ "$(cat "$cleaned" 2>/dev/null)" = "$wanted" ]
}

# Once after each change of the manifests: a control plane that starts again during a rollout deletes nothing that a
# newer bundle has added. Objects of this host's add-ons stay: kube-addons.service applies them.
delete_former() {
    is_clean && return 0
    [ "$?" = 1 ] || return 1
    kinds=$(printf '%s' "$applied_kinds" | awk 'NF { printf "%s%s", n++ ? "," : "", $2 }')
    labelled=$(kube get "$kinds" --all-namespaces -l "$applied_by" \
        -o "go-template={{range .items}}$object_row{{end}}") || return 1
    theirs=$(list_addon_objects) || return 1
    former=$(list_former) || return 1
    [ -z "$former" ] || printf '%s\n' "$former" | delete_objects || return 1
    mkdir -p "${cleaned%/*}" && printf '%s\n' "$wanted" >"$cleaned.tmp" && mv "$cleaned.tmp" "$cleaned"
}

# list_addon_objects: KIND[.GROUP] NAMESPACE NAME of what kube-addons.service applies.
list_addon_objects() {
    for list in "$site_addons"/*/objects.txt; do
        [ ! -e "$list" ] || cat "$list" || return 1
    done
}

# list_former: RESOURCE NAMESPACE NAME of each object that has the label and is not wanted.
list_former() {
    {
        printf 'kinds\n%s\nwanted\n%s\n%s\n' "$applied_kinds" "$wanted" "$theirs"
        echo labelled
        printf '%s\n' "$labelled" | name_groups
    } | awk '
        NF == 1 { part = $1; next }
        part == "kinds" { group = $2; sub(/^[^.]*/, "", group); resource[$1 group] = $2; next }
        part == "wanted" { wanted[$1, $2, $3]; next }
        NF == 3 && $1 in resource && !(($1, $2, $3) in wanted) { print resource[$1], $2, $3 }'
}
