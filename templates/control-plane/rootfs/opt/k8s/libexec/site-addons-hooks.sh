# The hooks of an add-on, for site-addons.sh: objects that run before and after the others are applied.
# needs: addons bundle digest directory here prune tab timeout work
# sets: found_hooks reason state
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# The inventory has "DIGEST EVENT FILE STEP": of the files with that digest all hooks of EVENT before FILE are done, and
# of FILE's STEP: "cleared", the earlier object is gone; "made", it was created; "done". A kill at any moment repeats at
# most the last step, and a hook runs once for each change of the add-on's files.

# run_hooks WHEN: 0 if the hooks of that time (pre or post) are done. Else sets reason, and state unless it is applying.
run_hooks() {
    event=$1-install
    [ -z "$found_digest" ] || event=$1-upgrade
    hooks=$directory/hooks
    list_hooks "$hooks" >"$work/hooks"
    passed=yes
    case $found_hooks in "$digest $event "?*) ;; *) passed='' ;; esac
    last=${found_hooks#"$digest $event "} step=${found_hooks##* }
    last=${last% *}
    [ "$last" != - ] || passed='' # none of the event has begun
    while IFS=$tab read -r file events kind namespace object marks; do
        case ,$events, in *,"$event",*) ;; *) continue ;; esac
        if [ -n "$passed" ]; then
            [ "$file" = "$last" ] || continue # done before
            passed=''
            [ "$step" != 'done' ] || continue
        else
            step=''
        fi
        run_hook </dev/null || return 1
    done <"$work/hooks"
}

list_hooks() { sed '/^#/d' "$1/hooks.tsv" 2>/dev/null; }

# note_hook STEP: into the inventory; else sets reason.
note_hook() {
    found_hooks="$digest $event $file $1" step=$1
    write_inventory applying '' || {
        reason=$problem
        return 1
    }
}

# run_hook: 0 when it is done. It goes on where an earlier run ended.
run_hook() {
    [ "$namespace" != - ] || namespace=default
    [ "$step" = cleared ] || [ "$step" = made ] || clear_hook || return 1
    [ "$step" = made ] || make_hook || return 1
    hook_problem=''
    case $kind in
        Job.batch) judge_hook_job || return 1 ;;
        Pod) judge_hook_pod || return 1 ;;
    esac
    rm -f "$work/hook-failed"
    case ,$marks, in *,end,*) delete_hook || return 1 ;; esac
    echo "add-on $name: hook $event ${kind%%.*} $namespace/$object: done"
    note_hook 'done'
}

clear_hook() {
    case ,$marks, in *,delete,*) delete_hook || return 1 ;; esac
    note_hook cleared
}

delete_hook() {
    output=$(kube -n "$namespace" delete "$kind" "$object" --ignore-not-found --timeout=20s 2>&1) && return 0
    case $output in *"doesn't have a resource type"*) return 0 ;; esac
    reason="hook $event ${kind%%.*} $namespace/$object: $(last_line "$output")"
    return 1
}

# An object that is there already was created just before a kill, or stays from an earlier time.
make_hook() {
    # shellcheck disable=SC2086 # a list of options
    output=$(kube apply $flags -f "$hooks/$file" 2>&1) || {
        output=$(printf '%s\n' "$output" | redact_hook)
        reason="hook $event ${kind%%.*} $namespace/$object: $(last_line "$output")"
        return 1
    }
    note_hook made
}

# A Job that is gone has completed, and its ttlSecondsAfterFinished is over.
judge_hook_job() {
    problem=$(kube -n "$namespace" get "$kind" "$object" --ignore-not-found \
        -o "go-template-file=$here/site-addons-job.gotemplate" 2>&1) || {
        reason="hook $event Job $namespace/$object: $(last_line "$problem")"
        return 1
    }
    case $problem in
        complete | '') return 0 ;;
        failed*) fail_hook ;;
        *) wait_for_hook ;;
    esac
    return 1
}

judge_hook_pod() {
    problem=$(kube -n "$namespace" get "$kind" "$object" --ignore-not-found -o 'jsonpath={.status.phase}' 2>&1) || {
        reason="hook $event Pod $namespace/$object: $(last_line "$problem")"
        return 1
    }
    case $problem in
        Succeeded | '') return 0 ;;
        Failed) fail_hook ;;
        *) wait_for_hook ;;
    esac
    return 1
}

wait_for_hook() {
    unready="hook $event ${kind%%.*} $namespace/$object: $problem" blocked=''
    explain_pods "$namespace" "$object"
    if [ -n "$blocked" ]; then
        state=waiting reason=$blocked
    elif ! has_node_for_pods; then
        state=waiting reason="no worker is Ready yet"
    else
        reason=$(printf '%s' "$unready" | cut -c1-700)
    fi
}

# A hook that failed runs again after a while: what it needs may be there then.
fail_hook() {
    unready="hook $event ${kind%%.*} $namespace/$object: $problem" blocked=''
    explain_pods "$namespace" "$object"
    state=failed reason=$(printf '%s' "$unready" | cut -c1-700)
    now=$(date +%s) since=$(sed -n "s/^$name $file //p" "$work/hook-failed" 2>/dev/null)
    if [ -z "$since" ]; then
        printf '%s %s %s\n' "$name" "$file" "$now" >"$work/hook-failed"
    elif [ "$((now - since))" -ge "${PAUSE:-60}" ]; then
        rm -f "$work/hook-failed"
        note_hook again
    fi
}

redact_hook() { (here=$bundle && redact); }
