# Print the host diff: a line for each change (--dry-run), with reasons (--plan), or as JSON (--plan --json).
# needs: here manifest prefix report store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

SHOWN=262144 # bytes of a file whose lines are shown

print_host_diff() {
    case $report in
        json)
            print_host_diff_json
            return $?
            ;;
        plan) print_heading ;;
    esac
    while read -r kind sha mode size source path; do
        [ "$kind $sha" != 'changed sealed' ] || kind=sealed
        printf '%-8s %s %s\n' "$kind" "$mode" "$path"
        [ "$report" = list ] || explain_change | sed 's/^/             /'
    done <"$work/changes"
    sed 's/^/remove   /' "$work/removed"
    if ! is_staged; then
        print_packages
        list_steps | while IFS='|' read -r step what; do printf '%-8s %s\n' "$step" "$what"; done
        list_unit_steps | while read -r step unit; do
            printf '%-8s %s\n' "$step" "$unit"
            [ "$report" = list ] || explain_step "$step" "$unit" | sed 's/^/             /'
        done
        list_settings | while IFS='|' read -r step what; do printf '%-8s %s\n' "$step" "$what"; done
    fi
    ! has_nothing_to_do || say "$NODE: nothing to do"
    ! grep -q '^changed sealed ' "$work/changes" ||
        say "Sealed files were not compared, and restarts because of them may not be needed: --unseal-file shows more."
    say "Dry run: nothing was changed."
}

print_heading() {
    if [ -n "$(current_generation)" ]; then
        installed_versions="Kubernetes $(installed_field KUBERNETES_VERSION), bundler $(installed_field TOOL_VERSION)"
        say "$CLUSTER/$NODE ($ADDRESS) has generation $(current_generation): $installed_versions"
    else
        say "$CLUSTER/$NODE ($ADDRESS) has nothing installed yet"
    fi
    say "this bundle: Kubernetes $KUBERNETES_VERSION, bundler $TOOL_VERSION, $(shorten "$(identity_of "$manifest")")"
}

# "what|text" of the steps before files are installed.
list_steps() {
    ! is_drain_due ||
        say "drain|this node is cordoned, and its pods go to other nodes first: $(count_lines <"$work/pods") of them"
    [ -z "$(etcd_step)" ] || say "one way|$(etcd_step)"
    sed -n 's/^missing \([a-z]*\) \([^ ]*\) \(.*\)/\1|\2 (\3) is created/p' "$work/users"
    [ ! -f "$store/packages-pending" ] || say "finish|an installation of packages that was interrupted"
    [ ! -f "$store/unfinished" ] || say "finish|an earlier run that was interrupted"
}

# "restart|start|enable|reload unit", in the order of the run.
list_unit_steps() {
    ! is_reload_due || say "reload NetworkManager.service"
    cat "$work/host-units"
    list_disabled_units | sed 's/^/enable /'
    for unit in $UNITS; do
        if grep -qxF "$unit" "$work/restarts" || is_pending "$unit"; then
            say "restart $unit"
        elif [ -n "$(UNITS=$unit list_inactive_units)" ]; then
            say "start $unit"
        fi
    done
}

# "what|text" of labels and taints that a control plane sets, images, kernel modules, kernel settings and swap.
list_settings() {
    list_node_labels
    list_missing_images | while IFS='|' read -r name ref id; do say "load|$ref ($id)"; done
    for module in $MODULES; do
        has_module "$module" || ! modprobe -n -q "$module" 2>/dev/null || say "module|$module"
    done
    list_wrong_sysctls | sed 's/^/set|/'
    list_unwanted_swaps | sed 's/^/swap off|/'
    list_swap_units | sed 's/^/mask|/'
}

# Of all Nodes: any control plane sets them.
list_node_labels() {
    labels=/etc/kubernetes/node-labels.tsv
    [ -f "$here/rootfs$labels" ] || return 0
    installed=$prefix$labels
    [ -f "$installed" ] || installed=/dev/null
    awk -f "$here/lib/transaction/compare-node-labels.awk" "$installed" "$here/rootfs$labels"
}

# The lines that differ, or why none is shown. The variables have the fields of a line of $work/changes.
explain_change() {
    [ "$kind" != sealed ] || echo "(it cannot be compared without the unseal code)"
    [ "$kind" = changed ] || return 0
    if [ "$mode" = 0600 ]; then
        echo "(holds a secret: not shown)"
        return 0
    fi
    case $path in /opt/k8s/bundle/MANIFEST | /opt/k8s/bundle/lib/*.json)
        echo "(follows from the other files)"
        return 0
        ;;
    esac
    if [ "$sha" = "$(print_digest <"$prefix$path")" ]; then
        echo "(the same content: mode or owner differ)"
        return 0
    fi
    if [ ! -f "$here/$source" ] || ! is_text "$prefix$path" || ! is_text "$here/$source"; then
        echo "(a program or other data: $(wc -c <"$prefix$path" | tr -d ' ') bytes become $size)"
        return 0
    fi
    if ! command -v diff >/dev/null 2>&1; then
        echo "(this host has no diff: compare $here/$source)"
        return 0
    fi
    print_readable "$prefix$path" >"$work/before"
    print_readable "$here/$source" >"$work/after"
    if diff -U 1 "$work/before" "$work/after" >"$work/diff"; then
        echo "(only in redacted secrets)"
        return 0
    fi
    sed 1,2d "$work/diff"
}

is_text() { [ "$(wc -c <"$1")" -le "$SHOWN" ] && [ "$(tr -d '\000' <"$1" | wc -c)" -eq "$(wc -c <"$1")" ]; }

print_readable() {
    case $1 in
        *.crt) openssl x509 -in "$1" -noout -subject -issuer -serial -startdate -enddate 2>/dev/null ;;
        *) redact <"$1" ;;
    esac
}

# explain_step STEP UNIT: why, and what it interrupts.
explain_step() {
    case $1 in
        restart | reload)
            causes=$(list_causes "$2")
            [ "$1" = restart ] || [ -n "$causes" ] || return 0 # NetworkManager has none
            say "because of $(printf '%s' "$causes" | join_causes)"
            systemctl -q is-active "$2" 2>/dev/null || return 0
            interruption=$(unit_field "$2" Interruption)
            [ -z "$interruption" ] || say "meanwhile, $interruption"
            ;;
    esac
}

join_causes() {
    awk 'NR <= 3 { printf "%s%s", (NR > 1 ? ", " : ""), $0 }
        END { if (NR > 3) printf " and %d more", NR - 3; if (NR == 0) printf "a run that was interrupted" }'
}

print_host_diff_json() {
    printf '{"format":"host-diff/1","cluster":%s,"node":%s,"address":%s,"nothing_to_do":%s,\n' \
        "$(json_string "$CLUSTER")" "$(json_string "$NODE")" "$(json_string "$ADDRESS")" \
        "$(if has_nothing_to_do; then echo true; else echo false; fi)"
    printf ' "generation":%s,"kubernetes":{"installed":%s,"bundle":%s},"bundle":%s,\n' \
        "$(json_number "$(current_generation)")" \
        "$(json_string "$(installed_field KUBERNETES_VERSION)")" "$(json_string "$KUBERNETES_VERSION")" \
        "$(json_string "$(identity_of "$manifest")")"
    printf ' "not_ready":%s,\n' "$(sed -n 's/^  \([a-z]\)/\1/p' "$work/failures" | json_lines)"
    printf ' "files":[%s],\n' "$(list_json_files | join_json)"
    if is_staged; then
        printf ' "staged":true}\n'
        return 0
    fi
    printf ' "packages":%s,\n "steps":[%s],\n "units":[%s],\n "settings":[%s]}\n' \
        "$(print_packages | json_lines)" \
        "$(list_steps | list_json_pairs | join_json)" \
        "$(list_unit_steps | list_json_units | join_json)" \
        "$(list_settings | list_json_pairs | join_json)"
}

json_number() { case $1 in '' | *[!0-9]*) echo null ;; *) echo "$1" ;; esac }
join_json() { awk '{ printf "%s\n  %s", (NR > 1 ? "," : ""), $0 }'; }

list_json_files() {
    while read -r kind sha mode size source path; do
        digest=$(json_string "$sha")
        [ "$sha" != sealed ] || size=null digest=null
        [ "$kind $sha" != 'changed sealed' ] || kind=sealed
        printf '{"change":"%s","path":%s,"mode":"%s","size":%s,"sha256":%s,"lines":%s}\n' \
            "$kind" "$(json_string "$path")" "$mode" "$size" "$digest" "$(explain_change | json_lines)"
    done <"$work/changes"
    while read -r path; do printf '{"change":"removed","path":%s}\n' "$(json_string "$path")"; done <"$work/removed"
}

list_json_pairs() {
    while IFS='|' read -r step what; do
        printf '{"what":%s,"text":%s}\n' "$(json_string "$step")" "$(json_string "$what")"
    done
}

list_json_units() {
    while read -r step unit; do
        interruption=$(unit_field "$unit" Interruption)
        [ "$step" = restart ] && systemctl -q is-active "$unit" 2>/dev/null || interruption=''
        printf '{"step":"%s","unit":%s,"because":%s,' \
            "$step" "$(json_string "$unit")" "$(list_causes "$unit" | json_lines)"
        printf '"seconds":%s,"interruption":%s}\n' \
            "$(json_number "$(seconds_of "$interruption")")" "$(json_string "$interruption")"
    done
}

# "up to 10 s: this happens": 10
seconds_of() { printf '%s\n' "$1" | sed -n 's/^up to \([0-9]*\) s: .*/\1/p'; }
