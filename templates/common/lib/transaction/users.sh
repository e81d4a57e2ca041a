# Users of units, with the numbers of cluster.yaml: created where they are missing, and removed by uninstall.sh.
# needs: here prefix store work
# sets: remaining_users
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# State file in /var/lib/bundler:
#   users    "user NAME" or "group NAME" of what install.sh created, written before it is created

# list_user_faults: lines of service-users.awk; nothing if all users of this node are as they must be.
list_user_faults() {
    [ -n "${SERVICE_USERS:-}" ] || return 0
    list_accounts | awk -v wanted="$SERVICE_USERS" -f "$here/lib/transaction/service-users.awk"
}

# The accounts with the names or the numbers, of other sources than files too.
list_accounts() {
    account_keys=$(printf '%s' "$SERVICE_USERS" | tr ':' ' ')
    for database in passwd group; do
        if [ -z "$prefix" ] && command -v getent >/dev/null 2>&1; then
            # shellcheck disable=SC2086 # a list of words
            getent "$database" $account_keys
        else
            cat "$prefix/etc/$database" 2>/dev/null
        fi | sed "s/^/$database /"
    done
}

create_users() {
    if is_staged; then return 0; fi
    list_user_faults >"$work/users"
    while read -r fault kind name id _; do
        [ "$fault" = missing ] || continue
        has_line "$store/users" "$kind $name" || printf '%s %s\n' "$kind" "$name" >>"$store/users" ||
            die 1 "cannot write $store/users"
        sync_record "$store/users"
        "add_$kind" >"$work/account.log" 2>&1 </dev/null || {
            tail -n 2 "$work/account.log" >&2
            die 1 "cannot create the $kind $name with the number $id: create it by hand, and run install.sh again"
        }
        note "created the $kind $name ($id)"
    done <"$work/users"
}

# has_account_program NAME: only of the running system.
has_account_program() { [ -z "$prefix" ] && command -v "$1" >/dev/null 2>&1; }

add_group() {
    if has_account_program groupadd; then
        groupadd -r -g "$id" "$name"
    else
        { [ ! -f "$prefix/etc/gshadow" ] || append_account "$prefix/etc/gshadow" "$name:!::"; } &&
            append_account "$prefix/etc/group" "$name:x:$id:"
    fi
}

add_user() {
    shell=/sbin/nologin
    [ ! -x "$prefix/usr/sbin/nologin" ] || shell=/usr/sbin/nologin
    if has_account_program useradd; then
        useradd -r -M -u "$id" -g "$name" -d / -s "$shell" -c 'unit of bundler' "$name"
    else
        # the line in passwd comes last: with it the user exists
        { [ ! -f "$prefix/etc/shadow" ] || append_account "$prefix/etc/shadow" "$name:!:::::::"; } &&
            append_account "$prefix/etc/passwd" "$name:x:$id:$id:unit of bundler:/:$shell"
    fi
}

# append_account FILE LINE: with one write, so that the file keeps its mode and its labels, and a kill leaves all or
# nothing.
append_account() {
    ! grep -q "^${2%%:*}:" "$1" || return 0
    if [ ! -s "$1" ] || [ -z "$(tail -c 1 "$1")" ]; then
        printf '%s\n' "$2" >>"$1"
    else
        printf '\n%s\n' "$2" >>"$1"
    fi
}

# list_created_users: "user|group NAME" that install.sh created here, users first.
list_created_users() { sort -ru "$store/users" 2>/dev/null; }

# remove_users: those that install.sh created. A user whose data stay stays with them, and in the record. `owned` has
# "NAME DIRECTORY" lines. Sets remaining_users; returns 1 if one could not be removed.
remove_users() {
    remaining_users='' removal_code=0
    [ -f "$store/users" ] || return 0
    list_created_users >"$work/created-users"
    : >"$store/users.new"
    while read -r kind name; do
        if has_data "$name"; then
            has_word "$remaining_users" "$name" || remaining_users="$remaining_users${remaining_users:+ }$name"
            printf '%s %s\n' "$kind" "$name" >>"$store/users.new"
        elif "remove_$kind" >"$work/account.log" 2>&1 </dev/null; then
            note "removed the $kind $name"
        else
            cat "$work/account.log" >&2
            printf '%s %s\n' "$kind" "$name" >>"$store/users.new"
            removal_code=1
        fi
    done <"$work/created-users"
    if [ -s "$store/users.new" ]; then replace_record "$store/users"; else rm -f "$store/users" "$store/users.new"; fi
    return "$removal_code"
}

has_data() {
    awk -v name="$1" '$1 == name { print $2 }' "$work/owned" >"$work/owned-here"
    while read -r directory; do
        [ ! -e "$prefix$directory" ] || return 0
    done <"$work/owned-here"
    return 1
}

remove_user() { remove_account userdel passwd shadow; }
remove_group() { remove_account groupdel group gshadow; }

# remove_account PROGRAM FILE SHADOW: userdel removes the group too on many systems.
remove_account() {
    grep -q "^$name:" "$prefix/etc/$2" || return 0
    if has_account_program "$1"; then
        "$1" "$name"
    else
        drop_account "$prefix/etc/$2" && drop_account "$prefix/etc/$3"
    fi
}

drop_account() {
    [ -f "$1" ] || return 0
    cp -p "$1" "$1.bundler-new" && awk -F : -v name="$name" '$1 != name' "$1" >"$1.bundler-new" &&
        mv -f "$1.bundler-new" "$1" || return 1
    ! command -v restorecon >/dev/null 2>&1 || restorecon "$1" 2>/dev/null || :
}

# The copies of units that run: programs that read files again find the new ones.
refresh_unit_files() {
    set --
    for unit_user in ${UNIT_USERS:-}; do
        [ ! -d "$prefix/run/bundler/${unit_user%:*}" ] || set -- "$@" "${unit_user%:*}"
    done
    [ $# -gt 0 ] || return 0
    DESTDIR=$prefix "$prefix/opt/k8s/libexec/unit-files.sh" "$@" ||
        die 1 "the units $* have old copies of their files: fix that and run install.sh again"
}

# number_owner USER:GROUP: with the numbers of users of units, which may not exist yet.
number_owner() {
    owner_user=${1%%:*} owner_group=${1#*:}
    for service_user in ${SERVICE_USERS:-}; do
        [ "$owner_user" != "${service_user%:*}" ] || owner_user=${service_user#*:}
        [ "$owner_group" != "${service_user%:*}" ] || owner_group=${service_user#*:}
    done
    printf '%s:%s\n' "$owner_user" "$owner_group"
}
