# Run checks in parallel, each one again until it passes or the time is over; helpers of all checks.
# needs: admin deadline jobs kubectl pki results row_needs server work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

now() { date +%s; }
say() { printf '%s\n' "$*" >&2; }
is_time_left() { [ "$(now)" -lt "$deadline" ]; }

# A check calls these: what must be true, and what it found. The last call of each is reported.
expect() { printf '%s\n' "$*" >"$results/$check.expected"; }
saw() { printf '%s\n' "$*" >"$results/$check.seen"; }

# conclude PROBLEMS SUMMARY: report the problems and return 1, or report the summary if there are none.
conclude() {
    if [ -n "$1" ]; then
        saw "$(printf '%s\n' "$1" | print_first)"
        return 1
    fi
    saw "$2"
}

# start_checks NAME...: start each check in the background; await_children waits for all of them.
start_checks() {
    for started_check; do
        run_check "$started_check" &
        children="$children $!"
    done
}

await_children() {
    # shellcheck disable=SC2086 # a list of process ids
    [ -z "$children" ] || wait $children
    children=
}

# make_slots: with --jobs a pipe has one line for each check that may run at the same time.
make_slots() {
    [ -n "$jobs" ] || return 0
    mkfifo "$work/slots" || exit 2
    exec 3<>"$work/slots"
    slots=0
    while [ "$slots" -lt "$jobs" ]; do
        echo >&3
        slots=$((slots + 1))
    done
}

# in_slot FUNCTION: call it in a slot. A check that waits for its next try has none.
in_slot() {
    if [ -z "$jobs" ]; then
        "$1"
        return $?
    fi
    read -r slot <&3
    "$1" 3>&-
    slot_code=$?
    echo >&3
    return "$slot_code"
}

# A check returns 0 if it passed, 1 to be tried again, 2 if it can no longer pass.
# shellcheck disable=SC2030,SC2031 # it is meant to stay in the subshell
run_check() (
    check=$1
    # shellcheck disable=SC2086 # split at dashes
    function=check_$(IFS=- && join_words _ $check)
    check_start=$(now)
    expect "" && saw ""
    while :; do
        has_prerequisites && in_slot "$function"
        code=$?
        if [ "$code" -ne 1 ] || ! is_time_left; then break; fi
        sleep 1
    done
    printf '%s\n' "$code" >"$results/$check.code"
    verdict=ok
    [ "$code" -eq 0 ] || verdict=FAILED
    printf '%-6s  %-26s %3s s  %s\n' \
        "$verdict" "$check" $(($(now) - check_start)) "$(one_line "$results/$check.seen")" >&2
)

# Is there what the check needs? If not, the check fails with the reason of block_checks.
# shellcheck disable=SC2031
has_prerequisites() {
    read_row "$check"
    [ "$row_needs" != nothing ] || return 0
    for prerequisite in api namespace workload; do
        if [ -f "$work/no-$prerequisite" ]; then
            expect "$(sed -n 1p "$work/no-$prerequisite")"
            saw "$(sed 1d "$work/no-$prerequisite")"
            return 2
        fi
        [ "$row_needs" != "$prerequisite" ] || return 0
    done
}

# block_checks PREREQUISITE EXPECTED SEEN: no check that needs it can pass. EXPECTED is one line.
block_checks() { printf '%s\n' "$2" "$3" >"$work/no-$1"; }

# for_each LIMIT FUNCTION ITEM...: call FUNCTION ITEM for every item, LIMIT of them in parallel.
for_each() (
    limit=$1 action=$2
    shift 2
    running=0
    for item; do
        "$action" "$item" &
        running=$((running + 1))
        [ "$running" -lt "$limit" ] || {
            wait
            running=0
        }
    done
    wait
)

# one_line FILE: its printable text in one line, "; " between the lines, cut after 600 characters.
one_line() {
    [ -f "$1" ] || return 0
    LC_ALL=C awk '{ gsub(/[^ -~]/, "") }
        NF { line = line (line == "" ? "" : "; ") $0 }
        END { print (length(line) > 600) ? substr(line, 1, 600) "..." : line }' "$1"
}

# print_first: the first five lines of stdin, and how many more there are.
print_first() { awk 'NR <= 5 { print } END { if (NR > 5) print "and " NR - 5 " more" }'; }

count_lines() { awk 'NF { n++ } END { print n + 0 }'; }
count_words() { echo $#; }

# join_words SEPARATOR WORD...
join_words() (
    IFS=$1
    shift
    printf '%s\n' "$*"
)

# list_planned ROLE name|address|pair: these words of every planned node with that role, on one line;
# a pair is NAME|ADDRESS.
list_planned() {
    listed=''
    for planned in $NODES; do # name|address|role,role
        planned_name=${planned%%|*} planned_rest=${planned#*|}
        planned_address=${planned_rest%%|*}
        case ",${planned_rest#*|}," in *",$1,"*) ;; *) continue ;; esac
        case $2 in
            name) listed="$listed $planned_name" ;;
            address) listed="$listed $planned_address" ;;
            pair) listed="$listed $planned_name|$planned_address" ;;
        esac
    done
    printf '%s\n' "${listed# }"
}

node_names() { list_planned "$1" name; }
node_addresses() { list_planned "$1" address; }
node_pairs() { list_planned "$1" pair; }

# The controller managers and schedulers that can be asked from here: with a profile they listen on loopback.
manager_pairs() {
    if [ -z "${MANAGERS_AT:-}" ]; then node_pairs control-plane; else printf '%s|%s\n' "$NODE" "$MANAGERS_AT"; fi
}
# shellcheck disable=SC2046 # a list of words
count_nodes() { count_words $(node_names "$1"); }
is_planned() { case " $(node_names "$1") " in *" $2 "*) ;; *) return 1 ;; esac }

# kubectl as the administrator at the chosen API server; every request has a time limit.
kube() {
    timeout 40 "$kubectl" --kubeconfig "$admin" --server "$server" --request-timeout=20s "$@"
}

# as_admin HOST PORT PATH: https_get with the administrator's certificate.
as_admin() { https_get "$1" "$2" "$3" "$pki/ca.crt" "$work/admin.crt" "$work/admin.key"; }

# extract_identity KUBECONFIG NAME: write its client certificate and key to NAME.crt and NAME.key in $work.
extract_identity() {
    for identity_part in certificate:crt key:key; do
        awk -v field="client-${identity_part%%:*}-data:" '$1 == field { gsub(/"/, "", $2); print $2; exit }' "$1" |
            base64 -d >"$work/$2.${identity_part##*:}"
    done
}
