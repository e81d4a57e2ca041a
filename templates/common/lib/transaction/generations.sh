# Generations: each bundle that was installed here is kept, so that the host can go back to it.
# needs: go_back here outcome prefix returned_from skipped store work
# sets: LARGE generations to unready_units well_before writing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# /var/lib/bundler:
#   generations/N/       a bundle as it was unpacked, without its packages (0700)
#   generations/N/state  healthy, unproven (it waits for other hosts) or failed; since when
#   current              the N whose files are installed
#   snapshots/           of etcd's data, from before a step that etcd does not take back
#   switch               "FROM TO back|forward", from before the first file moves until TO has proved to be well
#
# A generation is a bundle like any other: going back is running its own install.sh. While `switch`
# is there files may be mixed; when the host boots so bundler-recover.service goes back to FROM, or
# on to TO where etcd forbids going back. Where a run did not come so far (`unfinished`, files.sh) it
# takes away what lies beside the files of `current`.

GENERATIONS_KEPT=2
LARGE=1048576 # bytes from which a file shares its blocks with the same file of another generation

# Without symbolic links: the store may lie on another disk, and `here` says so.
generations=$(cd "$store/generations" 2>/dev/null && pwd -P) || generations=$store/generations

# A number, and no more: 0 is none.
read_number() { sed -n '1s/^\([0-9][0-9]*\)$/\1/p' "$1" 2>/dev/null; }
current_generation() { read_number "$store/current"; }
is_generation() { [ "${here%/*}" = "$generations" ]; }
list_numbers() { for each in "$generations"/*/state; do [ ! -f "$each" ] || basename "${each%/state}"; done | grep -x '[0-9]*' | sort -n; }
state_of() { sed -n '1s/ .*//p' "$generations/$1/state" 2>/dev/null; }
is_healthy() { [ "$(state_of "$1")" = healthy ]; }
identity_of() { print_files "$1/MANIFEST" | print_digest; }
field_of() { sed -n "s/^$2='\(.*\)'\$/\1/p" "$generations/$1/node.env"; }

write_line() { { printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1"; } || die 1 "cannot write $1"; }
set_state() { write_line "$generations/$1/state" "$2 $(print_time)"; }

# Sets `to`: the bundle as a generation of this host; the same bundle is the same generation.
save_generation() {
    if is_generation; then to=${here##*/}; return; fi
    own=$(identity_of "$here")
    for to in $(list_numbers); do
        [ "$(identity_of "$generations/$to")" != "$own" ] || { is_intact "$to" && return; break; }
        to=''
    done
    [ -n "${to:-}" ] || to=$(($(list_numbers | sed -n '$p') + 1))
    remove_partial_copies
    writing=yes
    part=$generations/$to.part
    (umask 077 && mkdir -p "$part") || die 1 "cannot make $part"
    keep_files || die 1 "cannot write $part: mend that and run install.sh again"
    wipe_secrets "$generations/$to"
    rm -rf "${generations:?}/$to"
    mv "$part" "$generations/$to" || die 1 "cannot make $generations/$to"
    set_state "$to" unproven
}

is_intact() { [ -s "$generations/$1/MANIFEST" ] && [ -z "$(list_damaged "$1")" ]; }
kept_files() { print_files "$1/MANIFEST" | awk '$4 !~ /^packages\//'; }

# list_damaged N: "sha256 mode size path" of what is not in that generation as it should be.
list_damaged() {
    kept_files "$generations/$1" >"$work/kept-files"
    (cd "$generations/$1" && awk '{ print $4 }' "$work/kept-files" | print_file_digests) |
        awk 'FILENAME == ARGV[1] { actual[$2] = $1; next } actual[$4] != $1' - "$work/kept-files"
}

# Before the first file moves: FROM must be there to go back to. What is damaged of it is taken from
# where it is installed.
check_rollback_target() {
    [ "$from" != 0 ] && [ "$from" != "$to" ] && [ "$way$returned_from" = back ] || return 0
    ! is_intact "$from" || return 0
    list_damaged "$from" >"$work/damaged"
    while read -r sha mode _ path; do repair_kept_file; done <"$work/damaged"
    ! is_intact "$from" || { say "  generation $from was damaged, and is mended"; return 0; }
    [ "$go_back" = no ] || die 3 "generation $from is damaged, so this change could not be taken back ($(list_damaged "$from" | awk 'NR <= 3 { printf "%s ", $4 }')); nothing was changed (--no-rollback goes on all the same)"
    way=forward
}

repair_kept_file() {
    case $path in rootfs/*) mended=$prefix${path#rootfs} ;; *) mended=$prefix/opt/k8s/bundle/$path ;; esac
    [ -f "$mended" ] && [ "$(print_digest <"$mended")" = "$sha" ] || return 0
    part=$generations/mended.part # not in the generation, where nothing is that its MANIFEST does not name
    (umask 077 && cp "$mended" "$part") && chmod "$mode" "$part" && mv -f "$part" "$generations/$from/$path"
}

# What an earlier generation has too is not written again where it is large, if it is still that; what
# this bundle leaves out comes from where install.sh would take it.
keep_files() {
    kept_files "$here" >"$work/kept-files"
    for number in $(list_numbers); do
        print_files "$generations/$number/MANIFEST" | awk -v n="$number" -v large=$LARGE '$3 >= large { print $1, $4, n }'
    done >"$work/twins"
    awk 'FILENAME == ARGV[1] { twin[$1 " " $2] = $3; next }
        { key = $1 " " $4; print (key in twin ? twin[key] : 0), $1, $4 }' "$work/twins" "$work/kept-files" >"$work/kept-from"
    awk '{ print $3 }' "$work/kept-from" | sed 's|^|/|; s|/[^/]*$||' | sort -u | sed "s|^|$part|" | xargs mkdir -p -m 0700 || return 1
    : >"$work/copies"
    : >"$work/carried-here"
    while read -r number sha path; do
        if [ "$number" != 0 ] && ln "$generations/$number/$path" "$part/$path" 2>/dev/null; then
            [ "$(print_digest <"$part/$path")" != "$sha" ] || continue
            rm -f "$part/$path"
        fi
        printf '%s %s\n' "$sha" "$path" >>"$work/copies" || return 1
        if [ -f "$here/$path" ]; then printf '%s\n' "$path" >>"$work/carried-here"; else provide "$path" "$part/$path" || return 1; fi
    done <"$work/kept-from"
    tar -cf - -C "$here" -T "$work/carried-here" | tar -xf - -C "$part" || return 1
    check_copies "$part"
    cp "$here/MANIFEST" "$part/" || return 1
    [ ! -f "$here/MANIFEST.sig" ] || cp "$here/MANIFEST.sig" "$part/"
}

# Sets `from`, the generation that was last in place and whole, however often a run was cut short
# since; and `cut_short` and `way` where one was. What etcd began once it does not take back.
read_switch() {
    from=$(current_generation) cut_short='' way=back
    [ ! -f "$store/switch" ] || read -r from cut_short way <"$store/switch"
    from=${from:-0}
}

start_switch() {
    [ -z "$cut_short" ] || [ -n "$returned_from" ] ||
        say "  an earlier run was cut short between the generations $from and $cut_short; now the host goes to $to"
    write_line "$store/switch" "$from $to $way"
    switching=yes
    sync
}

# Amid a change that was cut short etcd may have run in either version.
check_cut_short() {
    [ -n "$cut_short" ] || return 0
    for end in "$from" "$cut_short"; do
        old_etcd=$(field_of "$end" ETCD_VERSION 2>/dev/null)
        [ "$old_etcd" = "$(installed_field ETCD_VERSION)" ] || check_version_step etcd-upgrade etcd "$old_etcd" "$ETCD_VERSION"
    done
}

# What must be known before a new minor of etcd is begun; nothing where it is none.
etcd_step() {
    if [ -n "$cut_short" ]; then old_etcd=$(field_of "$from" ETCD_VERSION 2>/dev/null); else old_etcd=$(installed_field ETCD_VERSION); fi
    [ -n "$old_etcd" ] && [ -n "$ETCD_VERSION" ] && [ "$(minor "$old_etcd")" != "$(minor "$ETCD_VERSION")" ] || return 0
    echo "etcd goes from $old_etcd to $ETCD_VERSION, which it does not take back: this generation stays, however it turns out"
}

# etcd writes its data anew for a new minor, and the old one cannot read them then. A run that was cut
# short took its snapshot before it began; etcd may have gone on since, or not answer.
prepare_etcd_upgrade() {
    [ -n "$(etcd_step)" ] || return 0
    say "  $(etcd_step)"
    way=forward
    if [ -n "$cut_short" ] && [ "$(minor "$(field_of "$cut_short" ETCD_VERSION)")" = "$(minor "$ETCD_VERSION")" ]; then return; fi
    snapshot=$store/snapshots/before-$ETCD_VERSION.db
    mkdir -p "$store/snapshots"
    if ! save_snapshot >"$work/snapshot.log" 2>&1; then
        tail -n 2 "$work/snapshot.log" >&2
        die 3 "no snapshot of etcd could be taken, so nothing was changed"
    fi
    say "  a snapshot of its data is in $snapshot"
}

save_snapshot() {
    ETCDCTL_API=3 etcdctl --endpoints="https://$ADDRESS:2379" --cacert=/etc/etcd/pki/ca.crt \
        --cert=/etc/etcd/pki/healthcheck-client.crt --key=/etc/etcd/pki/healthcheck-client.key snapshot save "$snapshot" &&
        ETCDCTL_API=3 etcdctl snapshot status "$snapshot"
}

# Are the units of the installed generation well? Then it is one to go back to, and the new one has no excuse.
check_current_generation() {
    well_before=no
    [ "$from" != 0 ] && [ -z "$cut_short" ] || return 0
    unready_units=$(field_of "$from" UNITS)
    update_unready_units >/dev/null
    [ -z "$unready_units" ] || return 0
    well_before=yes
    is_healthy "$from" || [ ! -f "$generations/$from/state" ] || set_state "$from" healthy
}

# After the wait: the new generation stays, or the host goes back to where it was well.
finish_switch() {
    case $outcome in
        ready) set_state "$to" healthy ;;
        pending) [ "$well_before" = no ] || go_back_to_previous; set_state "$to" unproven ;;
        failed) go_back_to_previous; set_state "$to" failed ;;
    esac
    switching=no
    write_line "$store/current" "$to"
    rm -f "$store/switch"
    [ "$outcome" = ready ] || return 0
    prune_untrusted_generations
    prune_generations $GENERATIONS_KEPT
}

# The install.sh of the generation before takes over this process, and with it the lock. Nothing
# happens where there is none that was well.
go_back_to_previous() {
    if [ "$from" = "$to" ] || ! is_healthy "$from"; then return 0; fi
    case $go_back$way in
        yesback) ;;
        no*) say "$NODE: generation $to is not well; --no-rollback keeps it"; return 0 ;;
        *) say "$NODE: generation $to is not well, and stays: etcd does not go back"; return 0 ;;
    esac
    switching=no
    (set_state "$to" failed) # on a full disk too the way back is tried
    say "$NODE: generation $to is not well: going back to generation $from"
    note "went back from generation $to to $from"
    # This host's turn is kept: its lock ends with this process, and this file (rollout-order.sh).
    if [ -f "$work/turn" ]; then find "$work" -type f ! -name turn -exec rm -f {} +; else rm -rf "$work"; fi
    trap - EXIT
    # shellcheck disable=SC2046 # a list of options
    exec /bin/sh "$generations/$from/install.sh" --returned-from "$to" $(list_skip_options)
}

# What was overruled stays so on the way back, where the generation before knows of it.
list_skip_options() {
    for check in $skipped; do
        # preflight.sh: where bundles of bundler before 0.1.0 have their checks
        ! cat "$generations/$from/lib/preflight/checks.sh" "$generations/$from/lib/preflight.sh" 2>/dev/null |
            grep -q -e "^$check|yes|" -e "^$check|advice|" || echo "--skip-preflight $check"
    done
}

# At boot, before the units: files are those of FROM again, and nothing waits.
recover() {
    install_files
    systemctl daemon-reload
    # The boot did not count on units that were disabled amid the change.
    for unit in $(list_disabled_units); do
        systemctl -q enable "$unit" || warn "$unit could not be enabled"
        systemctl --no-block start "$unit" || warn "$unit could not be started"
    done
    rm -rf "$store/restart-pending" "$store/reload-pending" "$store/unfinished"
    write_line "$store/current" "$to"
    rm -f "$store/switch"
    note "recovered generation $to at boot"
    say "$NODE: the host stopped amid a change; generation $to is in place again"
}

# Nothing is to be done, and what waited for other hosts, or took longer than it might, is well by now.
update_current_state() {
    at=$(current_generation)
    case $(state_of "$at") in unproven | failed) ;; *) return 0 ;; esac
    unready_units=$UNITS
    update_unready_units >/dev/null
    [ -n "$unready_units" ] || set_state "$at" healthy
}

list_generations() {
    [ -n "$(list_numbers)" ] || { say "no generation is installed here"; return; }
    printf '%-4s %-9s %-20s %-10s %-10s %s\n' N STATE SINCE KUBERNETES BUNDLER IDENTITY
    for number in $(list_numbers); do
        mark=''
        [ "$number" != "$(current_generation)" ] || mark='*'
        read -r state since <"$generations/$number/state"
        printf '%-4s %-9s %-20s %-10s %-10s %.16s\n' "$number$mark" "$state" "$since" \
            "$(field_of "$number" KUBERNETES_VERSION)" "$(field_of "$number" TOOL_VERSION)" "$(identity_of "$generations/$number")"
    done
    [ ! -f "$store/switch" ] || say "a change from generation $(sed 's/ / to /' "$store/switch") was cut short: run install.sh again"
}

# rollback [N]: to that generation, by default the newest other one that was well.
rollback() {
    wanted=$1
    current=$(current_generation)
    if [ -z "$wanted" ]; then
        for number in $(list_numbers); do
            [ "$number" = "$current" ] || ! is_healthy "$number" || wanted=$number
        done
        [ -n "$wanted" ] || die 3 "no other generation here was ever well (see --list)"
    fi
    [ -f "$generations/$wanted/install.sh" ] || die 2 "there is no generation $wanted here (see --list)"
    say "going to generation $wanted"
    shift
    exec /bin/sh "$generations/$wanted/install.sh" "$@"
}

# What holds authorities that the installed generation believes no more (bundler certs rotate): going
# back there would take this host out of the cluster, and nothing of them is to stay.
prune_untrusted_generations() {
    believed=$(text_field "$generations/$to/state.env" AUTHORITIES_BELIEVED)
    [ -n "$believed" ] || return 0
    for number in $(list_numbers); do
        [ "$number" != "$to" ] || continue
        former=$(text_field "$generations/$number/state.env" AUTHORITIES_BELIEVED)
        for unit in ${former:--}; do
            has_word "$believed" "$unit" || { prune_generation "$number"; break; }
        done
    done
}

# prune_generations KEEP: the newest stay, what is installed among them, one to go back to, and both
# ends of a change that was cut short.
prune_generations() {
    read_switch
    newest_well=''
    for number in $(list_numbers); do
        [ "$number" = "$(current_generation)" ] || ! is_healthy "$number" || newest_well=$number
    done
    surplus=$(($(list_numbers | count_lines) - $1))
    for number in $(list_numbers); do
        [ "$surplus" -gt 0 ] || break
        case $number in "$(current_generation)" | "$newest_well" | "$from" | "$cut_short") continue ;; esac
        prune_generation "$number"
        surplus=$((surplus - 1))
    done
    remove_partial_copies
}

prune_generation() {
    wipe_secrets "$generations/$1"
    rm -rf "${generations:?}/$1"
    note "pruned generation $1"
}
