# How verify.sh runs checks: side by side, each until it holds or the time is over.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

now() { date +%s; }
say() { printf '%s\n' "$*" >&2; }
is_time_left() { [ "$(now)" -lt "$deadline" ]; }

# A check calls these: what must be, and what was seen (the last call counts).
expect() { printf '%s\n' "$*" >"$results/$check.expected"; }
saw() { printf '%s\n' "$*" >"$results/$check.seen"; }

# start_checks NAME...: each in the background; await_started waits for them.
start_checks() {
    for started_check; do
        run_check "$started_check" &
        started="$started $!"
    done
}

await_started() {
    # shellcheck disable=SC2086 # a list of process ids
    [ -z "$started" ] || wait $started
    started=
}

# A check returns 0 when it holds, 1 when it does not hold yet, 2 when it never will.
# shellcheck disable=SC2030,SC2031 # it is meant to stay in the subshell
run_check() (
    check=$1
    function=check_$(printf '%s' "$check" | tr - _)
    begun=$(now)
    expect "" && saw ""
    while :; do
        may_run && "$function"
        code=$?
        if [ "$code" -ne 1 ] || ! is_time_left; then break; fi
        sleep 1
    done
    printf '%s\n' "$code" >"$results/$check.code"
    verdict=ok
    [ "$code" -eq 0 ] || verdict=FAILED
    say "$(printf '%-6s  %-26s %3s s  %s' "$verdict" "$check" $(($(now) - begun)) "$(one_line "$results/$check.seen")")"
)

# What all checks of a kind need is there; else the check fails with the reason.
# shellcheck disable=SC2031
may_run() {
    needs=$(print_checks | awk -F'|' -v name="$check" '$1 == name { print $2 }')
    [ "$needs" != nothing ] || return 0
    for lacking in api namespace workload; do
        if [ -f "$work/no-$lacking" ]; then
            expect "$(sed -n 1p "$work/no-$lacking")"
            saw "$(sed 1d "$work/no-$lacking")"
            return 2
        fi
        [ "$needs" != "$lacking" ] || return 0
    done
}

# lack THING EXPECTED SEEN: no check that needs THING can hold.
lack() { printf '%s\n' "$2" "$3" >"$work/no-$1"; }

# for_each LIMIT FUNCTION ITEM...: FUNCTION ITEM for every item, at most LIMIT at a time.
for_each() (
    limit=$1 action=$2
    shift 2
    running=0
    for item; do
        "$action" "$item" &
        running=$((running + 1))
        [ "$running" -lt "$limit" ] || { wait; running=0; }
    done
    wait
)

# The lines of a file as one, "; " between them; long ones shortened.
one_line() {
    [ -f "$1" ] || return 0
    LC_ALL=C tr -cd '\012\040-\176' <"$1" | awk 'NF { line = line (line == "" ? "" : "; ") $0 }
        END { print (length(line) > 600) ? substr(line, 1, 600) "..." : line }'
}

# Lines on stdin → the first five and how many more there are.
few() { awk 'NR <= 5 { print } END { if (NR > 5) print "and " NR - 5 " more" }'; }

count_lines() { awk 'NF { n++ } END { print n + 0 }'; }

# planned ROLE: "name address" of every planned node with that role, a line each.
planned() {
    for planned_node in $NODES; do
        planned_roles=${planned_node##*|} planned_rest=${planned_node%|*}
        case ",$planned_roles," in *",$1,"*) printf '%s %s\n' "${planned_rest%%|*}" "${planned_rest#*|}" ;; esac
    done
}

planned_names() { planned "$1" | cut -d' ' -f1; }
planned_addresses() { planned "$1" | cut -d' ' -f2; }

# kubectl as the administrator at the chosen server, every request bounded.
kube() {
    timeout 40 "$kubectl" --kubeconfig "$admin" --server "$server" --request-timeout=20s "$@"
}

# as_admin HOST PORT PATH: https_get with the administrator's certificate.
as_admin() { https_get "$1" "$2" "$3" "$pki/ca.crt" "$work/admin.crt" "$work/admin.key"; }

# extract_identity KUBECONFIG NAME: its embedded client certificate and key as files in $work.
extract_identity() {
    for identity_part in certificate:crt key:key; do
        awk -v field="client-${identity_part%%:*}-data:" '$1 == field { gsub(/"/, "", $2); print $2; exit }' "$1" |
            base64 -d >"$work/$2.${identity_part##*:}"
    done
}
