# The test's own objects: a namespace, a Secret, a web server on every worker, and a probe there.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# Takes the namespace: waits for another run that holds it, removes what a dead one left.
claim_namespace() {
    state=$(read_namespace) || { lack namespace "a namespace for the test" "$state"; return 1; }
    [ -n "$state" ] || return 0
    case $state in
        "found yes "*) ;;
        *)
            say "verify.sh: the namespace $namespace exists and is not verify.sh's own; name another with --namespace"
            exit 2
            ;;
    esac
    while is_held_by_living_run "$state"; do
        say "waiting for another verify.sh (on ${state#found yes }) to end"
        sleep 3
        # An API that does not answer says nothing about the other run: what was known holds on.
        ! answer=$(read_namespace) || state=$answer
    done
    [ -z "$state" ] || { say "removing what an earlier run left in $namespace"; remove_namespace; }
}

# Prints nothing when there is none, else: found yes|- node pid end-of-its-time
read_namespace() {
    kube get namespace "$namespace" --ignore-not-found -o go-template='found {{with .metadata.labels}}{{with index . "bundler/verify"}}{{.}}{{end}}{{end}} {{with .metadata.annotations}}{{with index . "bundler/verify-run"}}{{.}}{{end}}{{end}}{{if .metadata.deletionTimestamp}} deleting{{end}}' 2>&1
}

# On this host the process tells; of another host only the time that its run may take.
is_held_by_living_run() {
    # shellcheck disable=SC2086 # words: found yes node pid end [deleting]
    set -- $1
    [ $# -eq 5 ] || return 1
    [ "$5" -gt "$(now)" ] || return 1
    [ "$3" = "$NODE" ] || return 0
    [ "$4" -ne $$ ] && tr '\0' ' ' 2>/dev/null <"/proc/$4/cmdline" | grep -q verify
}

# Bounded: a namespace that does not go is told, not waited for.
remove_namespace() {
    # With its pods gone the namespace goes at once; else its controller waits for them in long
    # steps. They hold nothing, so nobody needs to see them end.
    kube -n "$namespace" delete daemonsets --all --wait=false >/dev/null 2>&1
    kube -n "$namespace" delete pods --all --force --grace-period=0 >/dev/null 2>&1
    timeout 60 "$kubectl" --kubeconfig "$admin" --server "$server" delete namespace "$namespace" \
        --ignore-not-found --timeout=50s >"$work/removal" 2>&1 && return 0
    say "verify.sh: the namespace $namespace is still being removed: $(one_line "$work/removal")"
    return 1
}

create_objects() {
    [ -n "$VERIFY_IMAGE" ] ||
        lack workload "an image to start pods from" 'cluster.yaml has no image with "use: verify"'
    (umask 077 && openssl rand -hex 24 | tr -d '\n' >"$work/secret.value")
    namespace_made=yes
    if ! print_manifest | kube create --validate=false -f - >"$work/creation" 2>&1; then
        lack namespace "objects created in the namespace $namespace" "$(one_line "$work/creation")"
    fi
}

print_manifest() {
    cat <<MANIFEST
apiVersion: v1
kind: Namespace
metadata:
  name: $namespace
  labels:
    bundler/verify: "yes"
    pod-security.kubernetes.io/enforce: privileged
  annotations:
    bundler/verify-run: "$NODE $$ $((deadline + 60))"
---
apiVersion: v1
kind: Secret
metadata: {name: $secret_name, namespace: $namespace}
stringData:
  value: "$(cat "$work/secret.value")"
MANIFEST
    [ -z "$VERIFY_IMAGE" ] || [ -z "$(chosen_checks workload)" ] || print_workload_manifest
}

# The probe stands on the host's network and sees the host's root, so that it can run the host's
# own ping, curl and iptables-save; these need the three capabilities, and nothing needs privileged.
print_workload_manifest() {
    cat <<MANIFEST
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: $namespace}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 80}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: $namespace}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: web
        image: "$VERIFY_IMAGE"
        imagePullPolicy: Never
        ports: [{containerPort: 80}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: probe, namespace: $namespace}
spec:
  selector: {matchLabels: {app: probe}}
  template:
    metadata: {labels: {app: probe}}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      hostNetwork: true
      dnsPolicy: $(if has_feature coredns; then echo ClusterFirstWithHostNet; else echo Default; fi)
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: probe
        image: "$VERIFY_IMAGE"
        imagePullPolicy: Never
        command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 60 & wait; done"]
        securityContext:
          runAsUser: 0
          capabilities: {add: [NET_ADMIN, NET_RAW, SYS_CHROOT]}
          seLinuxOptions: {type: spc_t}
        volumeMounts: [{name: host, mountPath: /host, readOnly: true}]
      volumes: [{name: host, hostPath: {path: /}}]
MANIFEST
}
