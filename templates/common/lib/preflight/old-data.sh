# Data of etcd that is on this host before the installation: of which cluster is it? uninstall.sh keeps data, and disks
# move.
# needs: here prefix
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# DATA/.bundler-state    "STATE-ID CLUSTER NODE" of the installation whose etcd uses the data directory

# etcd would go on with the data, whichever cluster they are of.
check_old_data() {
    [ -n "$ETCD_DATA" ] && has_etcd_data || return 0
    data_owner=$(cat "$prefix$ETCD_DATA/.bundler-state" 2>/dev/null)
    if [ -z "$data_owner" ]; then
        # an installed bundle of an earlier bundler wrote no record
        [ "$(installed_field ETCD_DATA)" != "$ETCD_DATA" ] || return 0
        add_failure old-data "$ETCD_DATA has data of an etcd member, and no record of its cluster" "$(print_data_fix)"
    elif [ "${data_owner%% *}" != "$(text_field "$here/state.env" STATE_ID)" ]; then
        add_failure old-data "$ETCD_DATA has data of another cluster: of ${data_owner#* }, made with state $(
            shorten "${data_owner%% *}"
        )" "$(print_data_fix)"
    fi
}

has_etcd_data() {
    [ ! -f "$prefix$ETCD_DATA/member/snap/db" ] || return 0
    for log in "$prefix${ETCD_WAL:-$ETCD_DATA/member/wal}"/*.wal ${ETCD_WAL:+"$prefix$ETCD_WAL"/wal/*.wal}; do
        [ ! -f "$log" ] || return 0
    done
    return 1
}

print_data_fix() {
    echo "if nothing of it is needed: systemctl stop etcd;" \
        "rm -r $ETCD_DATA/member${ETCD_WAL:+ $ETCD_WAL/*.wal $ETCD_WAL/wal}; else move it away." \
        "If it is of this cluster: --skip-preflight old-data"
}

# After the installation: the data are of this bundle's state from now on.
mark_data() {
    if is_staged || [ -z "$ETCD_DATA" ] || [ ! -d "$prefix$ETCD_DATA/member" ]; then return 0; fi
    data_owner="$(text_field "$here/state.env" STATE_ID) $CLUSTER $NODE"
    mark=$prefix$ETCD_DATA/.bundler-state
    if has_line "$mark" "$data_owner"; then return 0; fi
    # the directory is not root's: no link of the user etcd is followed
    rm -f "$mark.new"
    (set -C && printf '%s\n' "$data_owner" >"$mark.new") || die 1 "cannot write $mark"
    replace_record "$mark"
}
