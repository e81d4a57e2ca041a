# The objects of kube-apply's manifests, in the form of an add-on's objects.txt. For apply-addons.sh and site-addons.sh.
# needs: nothing
# sets: applied_by object_row
# shellcheck shell=sh disable=SC2034 # the scripts share their variables

applied_by=bundler/applied-by=kube-apply # a label of each object that kube-apply.service applies

# Print one object: APIVERSION KIND NAMESPACE NAME.
object_row='{{.apiVersion}} {{.kind}} {{or .metadata.namespace "-"}} {{.metadata.name}}{{"\n"}}'

# list_manifest_objects DIRECTORY: KIND[.GROUP] NAMESPACE NAME of each object in its manifests. No API server is asked.
list_manifest_objects() {
    rows=$(kubectl label --local --overwrite -f "$1" "$applied_by" -o "go-template=$object_row") || return 1
    printf '%s\n' "$rows" | name_groups
}

# name_groups: KIND[.GROUP] NAMESPACE NAME for each line that $object_row printed; other lines are left out.
name_groups() {
    awk 'NF == 4 { print $2 ($1 ~ "/" ? "." substr($1, 1, index($1, "/") - 1) : ""), $3, $4 }'
}
