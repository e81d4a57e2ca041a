# What verify.sh prints at the end: a table for people, JSON for machines.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# has_held NAME: the check ran and held.
has_held() { [ "$(cat "$results/$1.code" 2>/dev/null)" = 0 ]; }

have_all_held() {
    for held_name in $(chosen_checks nothing api namespace workload); do
        has_held "$held_name" || return 1
    done
}

# print_result_rows: name|section|yes or no|first command to run, a line for each chosen check.
print_result_rows() {
    chosen=" $(chosen_checks nothing api namespace workload | tr '\n' ' ')"
    print_checks | while IFS='|' read -r row_name row_needs row_section row_holds row_run; do
        case $chosen in *" $row_name "*) ;; *) continue ;; esac
        row_ok=no
        ! has_held "$row_name" || row_ok=yes
        printf '%s|%s|%s|%s\n' "$row_name" "$row_section" "$row_ok" "$row_run"
    done
}

report_table() {
    print_result_rows | while IFS='|' read -r row_name row_section row_ok row_run; do
        seen=$(one_line "$results/$row_name.seen")
        if [ "$row_ok" = yes ]; then
            printf 'ok      %-14s %-26s %s\n' "$row_section" "$row_name" "$seen"
        else
            printf 'FAILED  %-14s %s\n        expected: %s\n        seen:     %s\n        run:      %s\n' \
                "$row_section" "$row_name" "$(one_line "$results/$row_name.expected")" "$seen" "$row_run"
        fi
    done
    total=$(print_result_rows | count_lines)
    failed=$(print_result_rows | grep -c '|no|')
    if [ "$failed" -eq 0 ]; then
        printf '\nCluster %s: all %s checks hold (%s s, from %s).\n' "$CLUSTER" "$total" "$1" "$NODE"
    else
        printf '\nCluster %s: %s of %s checks failed (%s s, from %s).\n' "$CLUSTER" "$failed" "$total" "$1" "$NODE"
    fi
}

report_json() {
    all=true
    have_all_held || all=false
    printf '{"cluster":%s,"ok":%s,"node":%s,"seconds":%s,"checks":[' \
        "$(json_string "$CLUSTER")" "$all" "$(json_string "$NODE")" "$1"
    print_result_rows | {
        separator=
        while IFS='|' read -r row_name row_section row_ok row_run; do
            ok=false
            [ "$row_ok" = no ] || ok=true
            printf '%s\n {"name":%s,"section":%s,"ok":%s,"expected":%s,"seen":%s,"look":%s}' "$separator" \
                "$(json_string "$row_name")" "$(json_string "$row_section")" "$ok" \
                "$(json_string "$(one_line "$results/$row_name.expected")")" \
                "$(json_string "$(one_line "$results/$row_name.seen")")" "$(json_string "$row_run")"
            separator=,
        done
    }
    printf '\n]}\n'
}
