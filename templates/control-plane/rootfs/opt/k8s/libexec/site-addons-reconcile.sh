# Add-ons with reconcile, for site-addons.sh: what somebody changed or deleted on the cluster is applied again.
# needs: diff_flags directory here name tab work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# A round begins with the script, and again after each pause. In it each add-on is looked at once.
begin_round() { : >"$work/reconciled"; }

# is_reconciling: whether an add-on of this host has reconcile, and this host's add-ons are those that count.
is_reconciling() {
    [ -s "$work/state" ] && list_addons | awk -F "$tab" '$5 == "yes" { found = 1 } END { exit !found }'
}

is_reconcile_due() {
    ! grep -qxF -e "$name" "$work/reconciled" || return 1
    printf '%s\n' "$name" >>"$work/reconciled"
}

# reconcile_objects: 0 if something was applied again.
reconcile_objects() {
    applied=''
    for part in "$directory"/[1-9]-*.yaml; do
        [ -f "$part" ] || continue
        reconcile_file && applied=yes
    done
    [ -n "$applied" ]
}

# Jobs are left out: one that is gone has completed, and would run again. $work is for this script's user only.
reconcile_file() {
    (umask 077 && awk '
        function print_document() { if (!is_job) printf "%s", document; document = ""; is_job = 0 }
        /^---/ { print_document() }
        /^kind: Job$/ { is_job = 1 }
        { document = document $0 "\n" }
        END { print_document() }' "$part" >"$work/reconcile.yaml")
    apply_reconciled
    code=$?
    rm -f "$work/reconcile.yaml" # it may have Secrets
    return "$code"
}

# Of $work/reconcile.yaml: 0 if something differs, and was applied.
apply_reconciled() {
    grep -q '^kind: ' "$work/reconcile.yaml" || return 1
    # shellcheck disable=SC2086 # a list of options
    drift=$(KUBECTL_EXTERNAL_DIFF="$here/differing-objects.sh" \
        kube diff $diff_flags -f "$work/reconcile.yaml" 2>&1)
    case $? in
        0) return 1 ;;
        1) ;;
        *)
            report "add-on $name: cannot compare it with the cluster: $(last_line "$drift")"
            return 1
            ;;
    esac
    printf '%s\n' "$drift" | awk -v addon="$name" \
        'NF == 2 { printf "add-on %s: %s is %s: applying it again\n", addon, $1, $2 }'
    try_file "$work/reconcile.yaml" >/dev/null && return 0
    report "add-on $name: cannot apply it again: $(last_line "$output")"
    return 1
}
