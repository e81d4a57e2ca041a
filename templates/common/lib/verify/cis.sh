# verify.sh --cis: the checks of the benchmark that this host has to meet, from lib/cis.tsv.
# needs: format here only prefix work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables
#
# lib/cis.tsv has a line for each check, with these columns (bundler/cluster/cis.py says what they mean):
#   ID STIG TYPE SECTION TITLE KIND SUBJECT ARGUMENT RULE VALUE NOTE
# For each line, $work/seen gets a line: "NUMBER set VALUE", "NUMBER unset", or "NUMBER unknown REASON".

cis_programs='etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy'

check_has_profile() {
    [ -f "$here/lib/cis.tsv" ] || {
        say "verify.sh: this bundle has no profile: add \`profile: cis\` to cluster.yaml, build it, and install it"
        exit 3
    }
}

# Only ids, for --list and --only.
list_cis() { awk -F '\t' '{ printf "%-10s %-10s %s\n", $1, $3, $5 }' "$here/lib/cis.tsv"; }
has_cis_id() { awk -F '\t' -v id="$1" '$1 == id { found = 1 } END { exit !found }' "$here/lib/cis.tsv"; }

verify_cis() {
    start=$(now)
    say "comparing $NODE with the benchmark"
    read_processes
    number=0 unit_separator=$(printf '\037') # as a tab would not, it keeps empty fields
    tr '\t' '\037' <"$here/lib/cis.tsv" >"$work/cis"
    while IFS=$unit_separator read -r _ _ _ _ _ cis_kind cis_subject cis_argument _; do
        number=$((number + 1))
        look_at
    done <"$work/cis" >"$work/seen"
    ONLY=" $only " ACCEPTED=$ACCEPTED CLUSTER=$CLUSTER NODE=$NODE LC_ALL=C awk -F '\t' -v format="$format" \
        -v seconds="$(($(now) - start))" -f "$here/lib/verify/cis.awk" "$work/seen" "$here/lib/cis.tsv"
}

# The arguments of each program that runs, one a line, in $work/arguments.PROGRAM. The kernel cuts names after 15
# characters.
read_processes() {
    for process in "$prefix"/proc/[0-9]*; do
        { read -r process_name <"$process/comm"; } 2>/dev/null || continue
        for program in $cis_programs; do
            [ "$process_name" = "$(printf '%.15s' "$program")" ] || continue
            tr '\000' '\n' <"$process/cmdline" >"$work/cmdline" 2>/dev/null || continue
            read -r process_path <"$work/cmdline" || continue
            [ "${process_path##*/}" != "$program" ] || sed 1d "$work/cmdline" >"$work/arguments.$program"
        done
    done
}

# Print what the check of $cis_kind, $cis_subject and $cis_argument finds, as lines for $work/seen.
look_at() {
    case $cis_kind in
        argument | setting) look_at_program ;;
        mode) look_at_files '%a' ;;
        owner) look_at_files '%U:%G' ;;
        owner-tree) look_at_tree ;;
        file-exists) if [ -e "$prefix$cis_subject" ]; then print_seen "$cis_subject"; else print_unset; fi ;;
        provider) look_at_provider ;;
    esac
}

print_seen() { printf '%s\tset\t%s\n' "$number" "$1"; }
print_unset() { printf '%s\tunset\t\n' "$number"; }
print_unknown() { printf '%s\tunknown\t%s\n' "$number" "$1"; }

# A flag wins over the field of the program's configuration file. Several flags are all looked at.
look_at_program() {
    arguments=$work/arguments.$cis_subject
    if ! [ -f "$arguments" ]; then
        print_unknown "$cis_subject does not run"
        return 0
    fi
    for word in $cis_argument; do
        case $word in
            --*) found=$(awk -v flag="$word" -f "$here/lib/verify/cis-flag.awk" "$arguments") ;;
            *)
                [ "$found" = unset ] || break
                config=$prefix$(sed -n 's/^--config=//p' "$arguments" | tail -n 1)
                if ! [ -f "$config" ]; then
                    print_unknown "${config#"$prefix"} cannot be read"
                    return 0
                fi
                found=$(awk -v path="$word" -f "$here/lib/verify/cis-setting.awk" "$config")
                ;;
        esac
        [ "$cis_kind" = setting ] || print_found
    done
    [ "$cis_kind" != setting ] || print_found
}

# $found is "set VALUE" or "unset".
print_found() {
    case $found in set*) print_seen "${found#set }" ;; *) print_unset ;; esac
}

# look_at_files FORMAT: a line for each file that the subject, which may have a *, stands for.
look_at_files() {
    seen_any=no
    for path in "$prefix"$cis_subject; do
        [ -e "$path" ] || continue
        seen_any=yes
        print_seen "$(stat -L -c "$1" "$path") ${path#"$prefix"}"
    done
    case $cis_subject in *'*'*) [ "$seen_any" = yes ] || print_unset ;; *)
        [ "$seen_any" = yes ] || print_unknown "$cis_subject does not exist"
        ;;
    esac
}

look_at_tree() {
    if ! [ -d "$prefix$cis_subject" ]; then
        print_unknown "$cis_subject does not exist"
        return 0
    fi
    find "$prefix$cis_subject" -exec stat -c '%U:%G %n' {} + | awk -v number="$number" -v prefix="$prefix" '
        { path = substr($2, length(prefix) + 1); printf "%s\tset\t%s %s\n", number, $1, path }'
}

# The provider that writes: the first one in the file.
look_at_provider() {
    provider=$(sed -n '/^ *providers:/,$s/^ *- \([a-z0-9]*\):.*/\1/p' "$prefix$cis_subject" 2>/dev/null | sed -n 1p)
    if [ -n "$provider" ]; then print_seen "$provider"; else print_unknown "$cis_subject names no provider"; fi
}
