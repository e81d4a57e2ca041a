# Print the results of verify.sh: a table for people, or JSON.
# needs: checks format here mode results
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

have_all_passed() {
    for passed_name in $(chosen_checks nothing api namespace workload); do
        read -r passed_code 2>/dev/null <"$results/$passed_name.code" && [ "$passed_code" = 0 ] || return 1
    done
}

# print_report SECONDS
print_report() {
    chosen=" $(chosen_checks nothing api namespace workload | tr '\n' ' ')"
    printf '%s\n' "$checks" |
        CHOSEN=$chosen ACCEPTED=$ACCEPTED LINE_ENDS=$LINE_ENDS CLUSTER=$CLUSTER NODE=$NODE RESULTS=$results LC_ALL=C \
            awk -F '|' -v format="$format" -v mode="$mode" -v seconds="$1" -v today="$(date -u +%Y-%m-%d)" \
            -f "$here/lib/verify/report.awk"
}
