# Whether the users of units can be created, and can enter the directories above their files.
# needs: here prefix work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

check_users() {
    [ -n "${SERVICE_USERS:-}" ] || return 0
    missing_users=''
    while read -r fault kind name id other; do
        case $fault in
            missing) missing_users="$missing_users${missing_users:+, }$kind $name ($id)" ;;
            wrong)
                add_failure users "the $kind $name of this host has $other, and $id is planned" \
                    "if nothing uses it: ${kind}del $name; else set the number of cluster.yaml's security.user_ids \
($name: …) to a UID that is also its GID; build again"
                ;;
            taken)
                add_failure users "$other has the number $id on this host, which is planned for the $kind $name" \
                    "choose another in cluster.yaml, free on all hosts: security: {user_ids: {$name: …}}; build again"
                ;;
        esac
    done <"$work/users"
    [ -z "$missing_users" ] || check_accounts_writable
    check_user_paths
}

check_accounts_writable() {
    for accounts in group gshadow passwd shadow; do
        accounts=$prefix/etc/$accounts
        if [ ! -e "$accounts" ] || [ -w "$accounts" ]; then continue; fi
        add_failure users "$accounts cannot be changed, and this host has no $missing_users" \
            "make it writable (lsattr $accounts; mount), or create them by other means, with these numbers"
        return 0
    done
}

# A directory that only root can enter, above what a unit runs or owns.
check_user_paths() {
    {
        printf '%s\n' /opt/k8s/bin /opt/k8s/libexec /opt/k8s/bundle/lib
        awk -F '\t' '$3 == "own" { print $4 }' "$here/lib/unit-files.tsv"
    } | while read -r path; do
        path=${path%/*}
        while [ -n "$path" ]; do
            printf '%s\n' "$path"
            path=${path%/*}
        done
    done | sort -u >"$work/user-paths"
    {
        printf '%s\n' /opt/k8s/bin /opt/k8s/libexec /opt/k8s/bundle /opt/k8s/bundle/lib
        cat "$work/user-paths"
    } | while read -r path; do
        case $(ls -ldL "$prefix$path" 2>/dev/null) in
            d????????[xt]*) ;;
            d*) printf '%s\n' "$path" ;;
        esac
    done | sort -u >"$work/closed-paths"
    while read -r path; do
        add_failure users "only root or a group can enter $path, and the units' users must" "chmod o+x $path"
    done <"$work/closed-paths"
}
