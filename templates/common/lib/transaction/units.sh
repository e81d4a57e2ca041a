# Start units, and wait until they are ready.
# needs: prefix settle store switched_at wait_limit well_before work
# sets: outcome restarted unready_units
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

restarted=0

unit_state() { systemctl is-active "$1" 2>/dev/null; }

list_inactive_units() {
    for unit in $UNITS; do
        case $(unit_state "$unit") in active | activating | reloading) ;; *) printf '%s\n' "$unit" ;; esac
    done
}

list_disabled_units() {
    for unit in $UNITS $BOOT_UNITS; do
        systemctl -q is-enabled "$unit" 2>/dev/null || printf '%s\n' "$unit"
    done
}

# In order, without waiting: a unit retries until what it needs is there.
start_units() {
    if [ -f "$store/reload-pending" ]; then
        systemctl daemon-reload || die 1 "systemctl daemon-reload failed"
        rm -f "$store/reload-pending"
    fi
    restart_host_units
    refresh_unit_files
    disabled=$(list_disabled_units)
    # shellcheck disable=SC2086 # a list of units
    [ -z "$disabled" ] || systemctl -q enable $disabled || die 1 "systemctl enable failed"
    inactive=$(list_inactive_units)
    for unit in $UNITS; do
        [ "$unit" != kubelet.service ] || load_images
        if is_pending "$unit" || printf '%s\n' "$inactive" | grep -qxF "$unit"; then
            systemctl --no-block restart "$unit" || die 1 "systemctl restart $unit failed"
            rm -f "$store/restart-pending/$unit"
            note "restarted $unit"
            restarted=$((restarted + 1))
        fi
    done
    rm -rf "$store/restart-pending" "$store/unfinished"
}

# Units of the host. One that fails stays in the list for the next run.
restart_host_units() {
    host_units=''
    [ -d "$store/host-units" ] || return 0
    for each in "$store/host-units"/*; do
        [ -f "$each" ] || continue
        unit=${each##*/} step=''
        read -r step <"$each"
        if [ "$step" = reload ] && ! systemctl -q is-active "$unit" 2>/dev/null; then
            rm -f "$each" # it reads its files when it starts
            continue
        fi
        [ "$step" != reload ] || step=reload-or-restart
        # a unit that the bundle brings starts at boot, too
        ! is_carried_unit "$unit" || systemctl -q enable "$unit" 2>/dev/null || :
        host_units="$host_units $unit"
        if systemctl "$step" "$unit" 2>"$work/host-unit"; then
            rm -f "$each"
            note "$step of $unit"
        else
            warn "systemctl $step $unit failed: $(tail -n 1 "$work/host-unit")"
        fi
    done
    rmdir "$store/host-units" 2>/dev/null || :
}

# A change after which a unit of the host fails is not healthy: of those that were restarted, one that failed then or
# since.
judge_host_units() {
    for unit in $host_units; do
        if [ ! -f "$store/host-units/$unit" ] && ! systemctl -q is-failed "$unit" 2>/dev/null; then continue; fi
        outcome=failed unready_units="$unready_units${unready_units:+ }$unit"
        say "  FAILED   $unit, which files of cluster.yaml restart"
        show_journal "$unit"
    done
}

# If this bundle has another container runtime, remove the containers of the former one: they would run on without
# their daemon.
stop_former_runtime() {
    former=$(sed -n 's/^runtime_unit=//p' "$prefix/opt/k8s/bundle/lib/runtime.sh" 2>/dev/null)
    case " $UNITS " in *" $former "*) return 0 ;; esac
    [ -n "$former" ] && systemctl -q is-active "$former" 2>/dev/null || return 0
    say "  stopping $former and removing its containers"
    systemctl -q stop kubelet.service
    (
        # shellcheck disable=SC1091 # of the installed bundle
        . "$prefix/opt/k8s/bundle/lib/runtime.sh"
        remove_pods
        systemctl -q stop "$former"
        remove_leftovers
    )
    note "ended $former"
}

# Set `outcome`: ready, pending (the other units only wait for other hosts) or failed.
wait_until_ready() {
    unready_units=$UNITS outcome=ready wait_begun=$(now) last_report=0
    say "  waiting until all units are ready, at most $wait_limit s"
    while :; do
        update_unready_units
        waited=$(($(now) - wait_begun))
        [ -n "$unready_units" ] || return 0
        if [ "$waited" -ge "$wait_limit" ] && ! is_working_on; then break; fi
        if is_failing_for_good; then break; fi
        if [ "$waited" -ge $((last_report + 15)) ]; then
            last_report=$waited
            say "  after $waited s: $(sed -n '1s/^[A-Za-z]* *//p' "$work/reasons")"
        fi
        sleep 1
    done
    report_unready_units
}

# Add-ons and the registry have time limits of their own, if nothing else is wrong.
is_working_on() {
    [ "$busy" = yes ] && [ "$waited" -lt $((wait_limit + ${ADDONS_WAIT:-0} + $(seed_wait))) ] &&
        ! grep -q '^FAILED' "$work/reasons"
}

# If all units were ready before, stop waiting when a unit restarts again and again. systemd counts from the last
# manual start, which may still be in its queue.
is_failing_for_good() {
    [ "$well_before" = yes ] || return 1
    for unit in $unready_units; do
        restarts=$(systemctl show -p NRestarts "$unit" 2>/dev/null | sed 's/.*=//')
        [ "${restarts:-0}" -lt 5 ] || ! is_settled "$unit" >/dev/null || return 0
    done
    return 1
}

# A unit that systemd is about to restart may still answer.
is_settled() {
    systemctl list-jobs --no-legend 2>/dev/null | awk -v unit="$1" '$2 == unit { found = 1 } END { exit found }' ||
        {
            echo "systemd is still starting it"
            return 2
        }
}

# A unit that restarts again and again looks ready in between.
is_stable() {
    since=$(systemctl show -p ActiveEnterTimestampMonotonic "$1" 2>/dev/null | sed 's/.*=//')
    lasted=$(awk -v since="${since:-0}" '{ print int($1 - since / 1000000) }' /proc/uptime)
    [ "$lasted" -ge "$settle" ] || {
        echo "it has run for $lasted s, and must run for $settle s"
        return 1
    }
}

update_unready_units() {
    still='' busy=no
    : >"$work/reasons"
    for unit in $unready_units; do
        check=ready_$(unit_field "$unit" Ready | tr - _)
        reason=$("$check" "$unit" && is_settled "$unit" && is_stable "$unit")
        case $? in
            0)
                say "  ready    $unit ($(($(now) - wait_begun)) s)"
                continue
                ;;
            3)
                busy=yes
                printf 'pending %s: %s\n' "$unit" "$reason" >>"$work/reasons"
                ;;
            2) printf 'pending %s: %s\n' "$unit" "$reason" >>"$work/reasons" ;;
            *) printf 'FAILED  %s: %s\n' "$unit" "$reason" >>"$work/reasons" ;;
        esac
        still="$still $unit"
    done
    unready_units=${still# }
}

# are_units_ready: now, without waiting; `unready_units` are those that are not.
are_units_ready() {
    unready_units=$UNITS
    update_unready_units >/dev/null
    [ -z "$unready_units" ]
}

report_unready_units() {
    outcome=pending
    ! grep -q '^FAILED' "$work/reasons" || outcome=failed
    while read -r verdict unit reason; do
        printf '  %-8s %s %s\n' "$verdict" "$unit" "$reason"
        show_journal "${unit%:}"
    done <"$work/reasons"
}

# read_journal UNIT FORMAT: of this change only, since the former generation has lines of its own.
read_journal() {
    journalctl -u "$1" ${switched_at:+--since "@$switched_at"} -n 300 --no-pager -o "$2" 2>/dev/null
}

# The last lines with an error, else the last lines.
show_journal() {
    read_journal "$1" cat | cut -c1-200 >"$work/journal"
    grep -iE 'error|fatal|panic|fail|invalid|unknown|refused|denied|cannot' "$work/journal" |
        grep -v ': Main process exited\|: Failed with result' |
        awk '!seen[$0]++' | tail -n 3 >"$work/errors"
    [ -s "$work/errors" ] || tail -n 3 "$work/journal" >"$work/errors"
    sed 's/^/             /' "$work/errors"
}
