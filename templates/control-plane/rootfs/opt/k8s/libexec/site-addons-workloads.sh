# Whether the workloads of an add-on are ready, and why not, for site-addons.sh.
# needs: bundle name network_addon tab timeout work
# sets: reason state
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts share their variables

# judge_workloads: ready; failed when the time is over; waiting if hosts are not installed yet.
judge_workloads() {
    unready='' reason='' blocked=''
    awk '$4 ~ /wait/' "$work/objects" >"$work/waited"
    while read -r kind namespace object _; do
        if is_workload_ready "$kind" "$namespace" "$object"; then continue; fi
        unready="$unready${unready:+; }${kind%%.*} $namespace/$object: $problem"
        explain_pods "$namespace" "$object"
    done <"$work/waited"
    if [ -z "$unready" ]; then
        state=ready
    elif [ -n "$blocked" ]; then
        state=waiting reason=$blocked
    elif ! has_node_for_pods; then
        state=waiting reason="no worker is Ready yet"
    else
        state=applying reason=$(printf '%s' "$unready" | cut -c1-700)
        ! is_late || state=failed
    fi
}

# is_workload_ready KIND NAMESPACE NAME: else sets problem. A job that failed can no longer become ready; one that is
# gone has completed, and its ttlSecondsAfterFinished is over.
is_workload_ready() {
    if [ "$1" = Job.batch ]; then
        problem=$(kube -n "$2" get "$1" "$3" --ignore-not-found \
            -o "go-template-file=$here/site-addons-job.gotemplate" 2>&1 </dev/null) || return 1
        case $problem in complete | '') return 0 ;; failed*) found_since=0 ;; esac
        return 1
    fi
    problem=$(kube -n "$2" rollout status "$1/$3" --watch=false 2>&1 </dev/null)
    case $?$problem in
        0*'successfully rolled out'* | 0*'roll out complete'* | 0*'rolling update complete'*) return 0 ;;
    esac
    problem=$(last_line "$problem")
    return 1
}

# explain_pods NAMESPACE NAME: add to unready what its pods say. Sets blocked if a host does not have an image: bundles
# have all of them, so that host is not installed yet.
explain_pods() {
    kube -n "$1" get pods -o "go-template-file=$here/site-addons-pods.gotemplate" \
        >"$work/pods" 2>/dev/null </dev/null || return 0
    awk -F "$tab" -v prefix="$2-" 'index($1, prefix) == 1' "$work/pods" >"$work/own-pods"
    while IFS=$tab read -r pod host why image text; do
        case $why in
            ErrImagePull | ImagePullBackOff | ErrImageNeverPull)
                blocked="$host does not have the image $image: install its bundle"
                continue
                ;;
        esac
        unready="$unready; pod $pod on $host: $why: $text"
        case $why in
            CrashLoopBackOff | Error)
                log=$(kube -n "$1" logs "$pod" --tail=2 --all-containers 2>/dev/null </dev/null |
                    (here=$bundle && redact) | tr '\n' ' ')
                [ -z "$log" ] || unready="$unready: $log"
                ;;
        esac
        break
    done <"$work/own-pods"
}

# A node becomes Ready with the add-on that makes the pod network; for that one any node will do.
has_node_for_pods() {
    wanted=True
    [ "$name" != "${network_addon:-}" ] || wanted=
    ready_nodes='jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
    kube get nodes -o "$ready_nodes" 2>/dev/null </dev/null | grep -q "^$wanted"
}
