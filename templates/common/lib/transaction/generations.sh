# Generations: the host keeps each bundle that was installed, and can roll back to it.
# needs: go_back here machine manifest outcome prefix returned_from secrets skipped store work
# sets: LARGE generations switched_at to unready_units well_before writing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# /var/lib/bundler:
#   generations/N/       an unpacked bundle without its packages (0700)
#   generations/N/MANIFEST.sealed  of a sealed bundle: which one it was (seal.sh)
#   generations/N/state  healthy, unproven (it waits for other hosts) or failed; since when
#   current              the N whose files are installed
#   failures/N           why generation N was not healthy, with the journal of its units
#   snapshots/           of etcd's data, from before an etcd upgrade that cannot be undone
#   switch               "FROM TO back|forward": exists from before the first file is renamed until TO is healthy
#
# A generation is a bundle: to roll back is to run its install.sh. While `switch` exists, the host may have files of
# both; bundler-recover.service then returns to FROM at boot, or goes on to TO where etcd forbids to go back. For a run
# that did not get that far (`unfinished`, files.sh) it removes the new files that were not installed yet.

GENERATIONS_KEPT=2
BATCH=67108864 # bytes, at least, that are copied between two lines about it
LARGE=1048576  # bytes from which a file shares its blocks with the same file of another generation

# Without symbolic links, like `here`: the state directory may be on another disk.
generations=$(cd "$store/generations" 2>/dev/null && pwd -P) || generations=$store/generations

current_generation() {
    read -r current_number 2>/dev/null <"$store/current" || return 0
    case $current_number in '' | *[!0-9]*) ;; *) printf '%s\n' "$current_number" ;; esac
}
is_generation() { [ "${here%/*}" = "$generations" ]; }
list_numbers() {
    for each in "$generations"/*/state; do
        [ -f "$each" ] || continue
        each=${each%/state}
        each=${each##*/}
        case $each in *[!0-9]*) ;; *) printf '%s\n' "$each" ;; esac
    done | sort -n
}
state_of() {
    read -r each_state _ 2>/dev/null <"$generations/$1/state" || return 0
    printf '%s\n' "$each_state"
}
is_healthy() { [ "$(state_of "$1")" = healthy ]; }
identity_of() { print_files "$1" | print_digest; }
field_of() { text_field "$generations/$1/node.env" "$2"; }

write_line() {
    printf '%s\n' "$2" >"$1.new" || die 1 "cannot write $1"
    replace_record "$1"
}
set_state() { write_line "$generations/$1/state" "$2 $(print_time)"; }

# Set `to`: the number of the generation for this bundle. The same bundle is the same generation.
save_generation() {
    if is_generation; then
        to=${here##*/}
        return 0
    fi
    identity=$(identity_of "$manifest")
    newest=0 to=''
    for number in $(list_numbers); do
        newest=$number
        [ "$(identity_of "$generations/$number/MANIFEST")" != "$identity" ] || to=$number
    done
    [ -z "$to" ] || ! is_intact "$to" || return 0
    to=${to:-$((newest + 1))}
    remove_partial_copies
    writing=yes
    part=$generations/$to.part
    (umask 077 && mkdir -p "$part") || die 1 "cannot create $part"
    copy_bundle || die 1 "cannot write $part: fix that and run install.sh again"
    wipe_secrets "$generations/$to"
    rm -rf "${generations:?}/$to"
    mv "$part" "$generations/$to" || die 1 "cannot create $generations/$to"
    set_state "$to" unproven
}

is_intact() { [ -s "$generations/$1/MANIFEST" ] && [ -z "$(list_damaged "$1")" ]; }
list_kept_files() { awk '!/^#/ && $4 !~ /^packages\//' "$1"; }

# list_damaged N: "sha256 mode size path" of the generation's files that are missing or differ from its MANIFEST.
list_damaged() {
    list_kept_files "$generations/$1/MANIFEST" >"$work/kept-files"
    (cd "$generations/$1" && awk '{ print $4 }' "$work/kept-files" | print_file_digests) |
        awk 'FILENAME == ARGV[1] { actual[$2] = $1; next } actual["*" $4] != $1' - "$work/kept-files"
}

# Before the first file is renamed: it must be possible to return to FROM. Its damaged files are repaired from the
# installed ones.
check_rollback_target() {
    [ "$from" != 0 ] && [ "$from" != "$to" ] && [ "$way$returned_from" = back ] || return 0
    ! is_intact "$from" || return 0
    list_damaged "$from" >"$work/damaged"
    while read -r sha mode _ path; do repair_kept_file; done <"$work/damaged"
    if is_intact "$from"; then
        say "  generation $from was damaged, and is repaired"
        return 0
    fi
    [ "$go_back" = no ] || die 3 "generation $from is damaged ($(list_damaged "$from" |
        awk 'NR <= 3 { printf "%s ", $4 }')), so this host could not roll back; nothing was changed. \
--no-rollback continues without that"
    way=forward
}

repair_kept_file() {
    case $path in rootfs/*) intact=$prefix${path#rootfs} ;; *) intact=$prefix/opt/k8s/bundle/$path ;; esac
    [ -f "$intact" ] && [ "$(print_digest <"$intact")" = "$sha" ] || return 0
    part=$generations/repaired.part # not in the generation, which contains only what its MANIFEST names
    (umask 077 && cp "$intact" "$part") && chmod "$mode" "$part" && mv -f "$part" "$generations/$from/$path"
}

# Copy the bundle to `part`. Large files of other generations are linked if they are still intact. Files that the
# bundle does not contain come from the installed files or the payload.
copy_bundle() {
    list_kept_files "$manifest" >"$work/kept-files"
    link_large_files || return 1
    : >"$work/bundled"
    while read -r _ path; do
        if [ -f "$here/$path" ]; then
            printf '%s\n' "$path" >>"$work/bundled" || return 1
        else
            copy_bundle_file "$path" "$part/$path" || return 1
        fi
    done <"$work/copies"
    copy_in_batches || return 1
    check_copies "$part"
    signed=${secrets:-$here} # the manifest with its signature: of a sealed bundle, the one in its seal
    cp "$signed/MANIFEST" "$part/" || return 1
    [ ! -f "$signed/MANIFEST.sig" ] || cp "$signed/MANIFEST.sig" "$part/"
}

# Copy the files of `bundled`, a tenth of them at a time, and say how far it is where that takes a while.
copy_in_batches() {
    awk -v least=$BATCH -v work="$work" '
        FILENAME == ARGV[1] { size[$4] = $3; next }
        { path[++files] = $0; total += size[$0] }
        END {
            step = total / 10 > least ? total / 10 : least
            for (i = 1; i <= files; i++) {
                print path[i] >(work "/batch." batches + 1)
                done += size[path[i]]
                if (done - before < step && i < files) continue
                before = done
                printf "%d %d %d\n", ++batches, done / 1048576, total / 1048576
                close(work "/batch." batches)
            }
        }' "$work/kept-files" "$work/bundled" >"$work/batches" || return 1
    while read -r batch copied all; do
        tar -cf - -C "$here" -T "$work/batch.$batch" | tar -xf - -C "$part" || return 1
        [ "$batch $copied" = "1 $all" ] || say "  copied $copied of $all MiB to $generations"
    done <"$work/batches"
}

# Create the directories of `part`, link what other generations have, and list in `copies` what is to be copied.
link_large_files() {
    for number in $(list_numbers); do
        awk -v n="$number" -v large=$LARGE '!/^#/ && $3 >= large { print $1, $4, n }' "$generations/$number/MANIFEST"
    done >"$work/twins"
    awk 'FILENAME == ARGV[1] { twin[$1 " " $2] = $3; next }
        { key = $1 " " $4; print (key in twin ? twin[key] : 0), $1, $4 }' \
        "$work/twins" "$work/kept-files" >"$work/sources"
    sed 's|^[^ ]* [^ ]* |./|; s|/[^/]*$||' "$work/sources" | sort -u >"$work/part-directories"
    (cd "$part" && xargs mkdir -p -m 0700 <"$work/part-directories") || return 1
    : >"$work/copies"
    : >"$work/links"
    while read -r number sha path; do
        list=$work/copies
        [ "$number" = 0 ] || ! ln "$generations/$number/$path" "$part/$path" 2>/dev/null || list=$work/links
        printf '%s %s\n' "$sha" "$path" >>"$list" || return 1
    done <"$work/sources"
    [ -s "$work/links" ] || return 0
    (cd "$part" && awk '{ print $2 }' "$work/links" | print_file_digests) |
        awk 'FILENAME == ARGV[1] { actual[$2] = $1; next } actual["*" $2] != $1' - "$work/links" >"$work/damaged-links"
    while read -r sha path; do
        rm -f "$part/$path"
        printf '%s %s\n' "$sha" "$path" >>"$work/copies" || return 1
    done <"$work/damaged-links"
}

# Set `from`: the generation that was installed completely before any run that was interrupted since. If one was, set
# `cut_short` to the generation that it was installing, and `way`.
read_switch() {
    from=$(current_generation) cut_short='' way=back
    [ ! -f "$store/switch" ] || read -r from cut_short way <"$store/switch"
    from=${from:-0}
}

start_switch() {
    [ -z "$cut_short" ] || [ -n "$returned_from" ] ||
        say "  an earlier run was interrupted between generations $from and $cut_short; this one installs $to"
    write_line "$store/switch" "$from $to $way"
    switching=yes switched_at=$(now)
    sync
}

# After an interrupted run etcd may have run in either version.
check_cut_short() {
    [ -n "$cut_short" ] || return 0
    for end in "$from" "$cut_short"; do
        old_etcd=$(field_of "$end" ETCD_VERSION)
        [ "$old_etcd" = "$(installed_field ETCD_VERSION)" ] ||
            {
                check_version_step etcd-upgrade etcd "$old_etcd" "$ETCD_VERSION"
                check_etcd_patch "$old_etcd"
            }
    done
}

# What to know before an upgrade to a new minor of etcd; nothing where this is not one.
etcd_step() {
    old_etcd=$(if [ -n "$cut_short" ]; then field_of "$from" ETCD_VERSION; else installed_field ETCD_VERSION; fi)
    [ -n "$old_etcd" ] && [ -n "$ETCD_VERSION" ] || return 0
    [ "$(minor "$old_etcd")" != "$(minor "$ETCD_VERSION")" ] || return 0
    echo "etcd goes from $old_etcd to $ETCD_VERSION and cannot go back: this generation stays, healthy or not"
}

# A new minor of etcd converts its data, and the old one cannot read them then. An interrupted run took its snapshot
# before that; etcd may have run since, or not answer.
prepare_etcd_upgrade() {
    [ -n "$(etcd_step)" ] || return 0
    say "  $(etcd_step)"
    way=forward
    if [ -n "$cut_short" ] && [ "$(minor "$(field_of "$cut_short" ETCD_VERSION)")" = "$(minor "$ETCD_VERSION")" ]; then
        return 0
    fi
    snapshot=$store/snapshots/before-$ETCD_VERSION.db
    mkdir -p "$store/snapshots"
    if ! save_snapshot >"$work/snapshot.log" 2>&1; then
        tail -n 2 "$work/snapshot.log" >&2
        die 3 "no snapshot of etcd could be taken, so nothing was changed"
    fi
    say "  a snapshot of etcd's data is in $snapshot"
}

save_snapshot() {
    # The programs are those of the installed etcd: its etcdctl may no longer read snapshots.
    snapshot_tool=$(installed_field SNAPSHOT_TOOL)
    [ -n "$snapshot_tool" ] || snapshot_tool=etcdctl
    pki=/etc/etcd/pki
    ETCDCTL_API=3 etcdctl --endpoints="https://$ADDRESS:2379" --cacert=$pki/ca.crt --cert=$pki/healthcheck-client.crt \
        --key=$pki/healthcheck-client.key snapshot save "$snapshot" &&
        ETCDCTL_API=3 "$snapshot_tool" snapshot status "$snapshot"
}

# Whether the units of the installed generation are ready: then the host can go back to it, and a unit that fails in
# the new generation fails because of that.
check_current_generation() {
    well_before=no
    [ "$from" != 0 ] && [ -z "$cut_short" ] || return 0
    unready_units=$(field_of "$from" UNITS)
    update_unready_units >/dev/null
    [ -z "$unready_units" ] || return 0
    well_before=yes
    is_healthy "$from" || [ ! -f "$generations/$from/state" ] || set_state "$from" healthy
}

# After the wait: the new generation stays, or the host goes back to the previous one.
finish_switch() {
    case $outcome in
        ready) set_state "$to" healthy ;;
        pending)
            [ "$well_before" = no ] || go_back_to_previous
            set_state "$to" unproven
            ;;
        failed)
            go_back_to_previous
            keep_failure
            set_state "$to" failed
            ;;
    esac
    switching=no
    write_line "$store/current" "$to"
    rm -f "$store/switch"
    [ "$outcome" = ready ] || return 0
    prune_untrusted_generations
    prune_generations $GENERATIONS_KEPT
}

# The install.sh of the previous generation replaces this process and keeps its lock. Nothing happens where no
# previous generation was healthy.
go_back_to_previous() {
    if [ "$from" = "$to" ] || ! is_healthy "$from"; then return 0; fi
    case $go_back$way in
        yesback) ;;
        no*)
            say "$NODE: generation $to is not healthy; --no-rollback keeps it"
            return 0
            ;;
        *)
            say "$NODE: generation $to is not healthy, and stays: etcd cannot go back"
            return 0
            ;;
    esac
    switching=no
    (set_state "$to" failed) # the host goes back even if its disk is full
    keep_failure
    say "$NODE: generation $to is not healthy: going back to generation $from"
    note "went back from generation $to to $from"
    # The rollout slot is kept: the lock in etcd ends with this process, or when this file goes (rollout-order.sh).
    if [ -f "$work/slot" ]; then find "$work" -type f ! -name slot -exec rm -f {} +; else rm -rf "$work"; fi
    trap - EXIT
    told_machine=$machine
    export told_machine
    # shellcheck disable=SC2046 # a list of options
    exec /bin/sh "$generations/$from/install.sh" --returned-from "$to" $(list_skip_options)
}

# failures/N: why generation N was not healthy, and its journal. The host's journal soon has more of the next one.
keep_failure() {
    (umask 077 && mkdir -p "$store/failures" 2>/dev/null) || return 0
    {
        printf 'generation %s was not healthy at %s\n' "$to" "$(print_time)"
        cat "$work/reasons" 2>/dev/null || echo "the run failed before its units were started"
        for unit in ${unready_units:-}; do
            printf '\n%s\n' "$unit"
            read_journal "$unit" short-iso
        done
    } | redact 2>/dev/null >"$store/failures/$to" || :
}

# The same checks are skipped by the previous generation's install.sh, if it has them.
list_skip_options() {
    for check in $skipped; do
        # preflight.sh: where bundles of bundler before 0.1.0 have their checks
        ! cat "$generations/$from/lib/preflight/checks.sh" "$generations/$from/lib/preflight.sh" 2>/dev/null |
            grep -q -e "^$check|yes|" -e "^$check|advice|" || echo "--skip-preflight $check"
    done
}

# At boot, before the units start: install the files of FROM again, and do not wait.
recover() {
    install_files
    systemctl daemon-reload
    # systemd does not start units at boot that the interrupted run had disabled.
    for unit in $(list_disabled_units); do
        systemctl -q enable "$unit" || warn "$unit could not be enabled"
        systemctl --no-block start "$unit" || warn "$unit could not be started"
    done
    rm -rf "$store/restart-pending" "$store/reload-pending" "$store/unfinished"
    write_line "$store/current" "$to"
    rm -f "$store/switch"
    note "recovered generation $to at boot"
    say "$NODE: the host stopped during a change; generation $to is installed again"
}

# With nothing to do: a generation that waited for other hosts, or took too long, may be healthy by now.
update_current_state() {
    current=$(current_generation)
    case $(state_of "$current") in unproven | failed) ;; *) return 0 ;; esac
    ! are_units_ready || set_state "$current" healthy
}

list_generations() {
    if [ -z "$(list_numbers)" ]; then
        say "no generation is installed here"
        return 0
    fi
    printf '%-4s %-9s %-20s %-10s %-10s %s\n' N STATE SINCE KUBERNETES BUNDLER IDENTITY
    for number in $(list_numbers); do
        mark=''
        [ "$number" != "$(current_generation)" ] || mark='*'
        read -r state since <"$generations/$number/state"
        printf '%-4s %-9s %-20s %-10s %-10s %.16s\n' "$number$mark" "$state" "$since" \
            "$(field_of "$number" KUBERNETES_VERSION)" "$(field_of "$number" TOOL_VERSION)" \
            "$(identity_of "$generations/$number/MANIFEST")"
    done
    for number in $(list_numbers); do
        [ "$(state_of "$number")" != failed ] || [ ! -f "$store/failures/$number" ] ||
            say "generation $number failed: its reasons and its journal are in $store/failures/$number"
    done
    [ ! -f "$store/switch" ] ||
        say "a change from generation $(sed 's/ / to /' "$store/switch") was interrupted: run install.sh again"
}

# rollback [N]: to that generation, by default the newest other one that was healthy.
rollback() {
    wanted=$1
    current=$(current_generation)
    if [ -z "$wanted" ]; then
        for number in $(list_numbers); do
            [ "$number" = "$current" ] || ! is_healthy "$number" || wanted=$number
        done
        [ -n "$wanted" ] || die 3 "no other generation here was ever healthy (see --list)"
    fi
    [ -f "$generations/$wanted/install.sh" ] || die 2 "there is no generation $wanted here (see --list)"
    say "going to generation $wanted"
    shift
    exec /bin/sh "$generations/$wanted/install.sh" "$@"
}

# Remove generations with CAs or keys that the installed one does not know any more (bundler certs rotate, bundler
# secrets rotate): with them this host could not join the cluster, and their secrets are to be removed.
prune_untrusted_generations() {
    for number in $(list_numbers); do
        [ "$number" = "$to" ] || ! has_former_secrets "$number" || prune_generation "$number"
    done
}

# has_former_secrets N: a CA without the field in state.env is the first one, a key without it is unknown.
has_former_secrets() {
    for each_field in AUTHORITIES_BELIEVED TOKENS_ACCEPTED SECRETS_READ_WITH; do
        known=$(text_field "$generations/$to/state.env" $each_field)
        former=$(text_field "$generations/$1/state.env" $each_field)
        [ -n "$known" ] || continue
        [ -n "$former" ] || [ $each_field != AUTHORITIES_BELIEVED ] || former=-
        for each_id in $former; do has_word "$known" "$each_id" || return 0; done
    done
    return 1
}

# prune_generations KEEP: the newest ones stay, the installed one, one to roll back to, both of an interrupted change,
# and the one that this host has just gone back from: its record says why.
prune_generations() {
    read_switch
    newest_healthy=''
    current=$(current_generation)
    for number in $(list_numbers); do
        [ "$number" = "$current" ] || ! is_healthy "$number" || newest_healthy=$number
    done
    surplus=$(($(list_numbers | count_lines) - $1))
    for number in $(list_numbers); do
        [ "$surplus" -gt 0 ] || break
        case $number in "$current" | "$newest_healthy" | "$from" | "$cut_short" | "$returned_from") continue ;; esac
        prune_generation "$number"
        surplus=$((surplus - 1))
    done
    remove_partial_copies
}

prune_generation() {
    wipe_secrets "$generations/$1"
    rm -rf "${generations:?}/$1" "$store/failures/$1"
    note "pruned generation $1"
}
