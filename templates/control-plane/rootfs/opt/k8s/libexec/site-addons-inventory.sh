# The inventories of site-addons.sh, and the deletion of what is in them and in no add-on.
# needs: addons here manifests name prune work, and the function list_manifest_objects
# sets: found_digest found_hooks found_reason found_since found_state found_trying problem
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# read_inventory: of the add-on NAME; the objects are in $work/objects. One that does not exist is empty.
read_inventory() {
    found_digest='' found_hooks='' found_state='' found_reason='' found_since=0 found_trying=''
    : >"$work/objects"
    answer=$(kube -n kube-system get configmap "bundler-addon-$name" --ignore-not-found \
        -o "go-template-file=$here/site-addons-inventory.gotemplate" 2>&1) || {
        problem="cannot read its inventory: $(last_line "$answer")"
        return 1
    }
    [ -n "$answer" ] || return 0
    printf '%s\n' "$answer" | sed '1,/^\/\/$/d' >"$work/objects"
    while read -r key value; do
        case $key in
            digest) found_digest=$value ;;
            hooks) found_hooks=$value ;;
            prune) found_prune=$value ;;
            reason) found_reason=$value ;;
            since) found_since=$value ;;
            state) found_state=$value ;;
            trying) found_trying=$value ;;
            //) break ;;
        esac
    done <<ANSWER
$answer
ANSWER
}

# write_inventory STATE REASON: with the objects in $work/objects.
write_inventory() {
    objects=$(awk '{ printf "%s\\n", $0 }' "$work/objects")
    {
        printf '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bundler-addon-%s",' "$name"
        printf '"namespace":"kube-system","labels":{"bundler/addon":"%s"}},"data":{' "$name"
        printf '"digest":"%s","trying":"%s","hooks":"%s",' "$found_digest" "$found_trying" "$found_hooks"
        printf '"since":"%s","prune":"%s","state":"%s","reason":%s,"objects":"%s"}}\n' \
            "$found_since" "$prune" "$1" "$(json_string "$2")" "$objects"
    } >"$work/inventory.json"
    answer=$(kube replace -f "$work/inventory.json" 2>&1) || answer=$(kube create -f "$work/inventory.json" 2>&1) || {
        problem="cannot write its inventory: $(last_line "$answer")"
        return 1
    }
    found_state=$1 found_reason=$2
}

# delete_unwanted PRUNE: what is in $work/objects, and neither in an add-on of this host nor in a manifest of
# kube-apply. Else sets reason.
delete_unwanted() {
    : >"$work/kept"
    cat "$addons"/*/objects.txt >>"$work/kept" 2>/dev/null
    if [ -d "$manifests" ] && ! answer=$(list_manifest_objects "$manifests" 2>&1 >>"$work/kept"); then
        reason="cannot read $manifests: $(last_line "$answer")"
        return 1
    fi
    awk -v prune="$1" '
        FILENAME == ARGV[1] { kept[$1 " " $2 " " $3]; next }
        ($1 " " $2 " " $3) in kept || $4 ~ /stay/ || (prune != "all" && $4 ~ /keep/) { next }
        { print }' "$work/kept" "$work/objects" >"$work/unwanted"
    while read -r kind namespace object _; do
        [ "$namespace" != - ] || namespace=default
        answer=$(kube -n "$namespace" delete "$kind" "$object" --ignore-not-found --wait=false 2>&1 </dev/null)
        case $?$answer in
            0*) [ -z "$answer" ] || printf '%s\n' "$answer" ;;
            *"doesn't have a resource type"*) ;; # its definition is gone, and it with it
            *)
                reason=$(last_line "$answer")
                return 1
                ;;
        esac
    done <"$work/unwanted"
}

# Add-ons that left cluster.yaml: their objects, then their inventories.
delete_former_addons() {
    answer=$(kube -n kube-system get configmaps -l bundler/addon -o name 2>&1) || {
        report "cannot list the inventories: $(last_line "$answer")"
        return 0
    }
    for former in $answer; do
        name=${former#*/bundler-addon-} found_prune=objects reason=''
        ! cut -f 1 "$work/table" | grep -qxF -e "$name" || continue
        if read_inventory && delete_unwanted "$found_prune" &&
            answer=$(kube -n kube-system delete "$former" --ignore-not-found 2>&1); then
            echo "add-on $name: deleted, because it is not in cluster.yaml any more"
        else
            set_state "$name" applying "cannot delete it: ${reason:-$(last_line "$answer")}"
        fi
    done
}
