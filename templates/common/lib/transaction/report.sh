# Report to other programs: the outcome of a run as JSON, its exit code, and the generations as JSON.
# needs: die_text generations live loaded outcome report restarted result started_at store unready_units work
# sets: machine
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# docs/reference/json.md has the shapes. The process that goes back to an earlier generation inherits descriptor 3.

# From here on stdout is descriptor 3, and everything that is said goes to stderr.
report_to_machine() {
    machine=yes
    exec 3>&1 1>&2
}

# print_run_json CODE
print_run_json() {
    printf '{"format":"install/1","outcome":"%s","exit_code":%s,\n' "$(name_outcome "$1")" "$1"
    printf ' "cluster":%s,"node":%s,"kubernetes":%s,"generation":%s,\n' \
        "$(json_text "${CLUSTER:-}")" "$(json_text "${NODE:-}")" "$(json_text "${KUBERNETES_VERSION:-}")" \
        "$(json_number "$(current_generation)")"
    printf ' "files_installed":%s,"files_removed":%s,"units_started":%s,"images_loaded":%s,"seconds":%s,\n' \
        "$(count_if_done changes)" "$(count_if_done removed)" "${restarted:-0}" "${loaded:-0}" \
        "$(($(now) - started_at))"
    printf ' "units_not_ready":%s,\n "addons":[%s],\n "problems":%s}\n' \
        "$(list_late_units | json_lines)" \
        "$(list_json_addons | join_json)" \
        "$(list_problems "$1" | json_lines)"
}

name_outcome() {
    case $1 in
        0 | 10 | 11) echo "${result:-done}" ;;
        1) echo failed ;;
        2) echo usage ;;
        3) echo refused ;;
        4) echo not-ready ;;
        5) echo rolled-back ;;
        6) echo sealed ;;
        *) echo interrupted ;;
    esac
}

# The exit code of a run that did not fail, with --exit-code.
print_outcome_code() {
    case $result in
        done) echo 10 ;;
        waiting) echo 11 ;;
        *) echo 0 ;;
    esac
}

# Lines of a list that the run worked through; none of them before files were installed.
count_if_done() {
    case $result${outcome:-} in
        '' | nothing) echo 0 ;;
        *) count_lines <"$work/$1" ;;
    esac
}

list_late_units() {
    [ "${outcome:-ready}" = ready ] || printf '%s\n' "$unready_units" | tr ' ' '\n' | sed '/^$/d'
}

# The state of each add-on, on a control plane that this run changed: NAME STATE REASON.
list_addon_states() { cat "$live/run/kube-addons/state" 2>/dev/null; }

list_json_addons() {
    [ -n "${outcome:-}" ] || return 0
    list_addon_states | while read -r addon addon_state addon_reason; do
        printf '{"name":%s,"state":%s,"reason":%s}\n' "$(json_string "$addon")" "$(json_string "$addon_state")" \
            "$(json_text "$addon_reason")"
    done
}

say_addons() {
    list_addon_states | while read -r addon addon_state addon_reason; do
        say "  add-on $addon: $addon_state${addon_reason:+: $addon_reason}"
    done
}

# Why a run failed or was refused, a line each.
list_problems() {
    case $1 in 0 | 10 | 11) return 0 ;; esac
    [ ! -f "$work/failures" ] || sed -n 's/^  \([a-z]\)/\1/p' "$work/failures"
    [ -z "${die_text:-}" ] || printf '%s\n' "$die_text"
}

finish_list() {
    if [ "$report" = json ]; then print_generations_json; else list_generations; fi
    exit 0
}

print_generations_json() {
    printf '{"format":"generations/1","current":%s,"interrupted":%s,\n' "$(json_number "$(current_generation)")" \
        "$(json_text "$([ ! -f "$store/switch" ] || awk '{ print $1 " to " $2 }' "$store/switch")")"
    printf ' "generations":[%s]}\n' "$(list_json_generations | join_json)"
}

list_json_generations() {
    for number in $(list_numbers); do
        read -r state since <"$generations/$number/state"
        printf '{"number":%s,"state":%s,"since":%s,"kubernetes":%s,"bundler":%s,"identity":%s}\n' \
            "$number" "$(json_string "$state")" "$(json_string "$since")" \
            "$(json_string "$(field_of "$number" KUBERNETES_VERSION)")" \
            "$(json_string "$(field_of "$number" TOOL_VERSION)")" \
            "$(json_string "$(identity_of "$generations/$number/MANIFEST")")"
    done
}

# null for an empty text
json_text() { if [ -n "$1" ]; then json_string "$1"; else echo null; fi; }
