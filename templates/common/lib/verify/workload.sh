# The test's objects: a namespace, a Secret, and on every worker a web server and a probe pod.
# needs: admin deadline here kubectl namespace secret_name server work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# Take the namespace: wait while another run uses it, delete what a killed run left there.
claim_namespace() {
    state=$(read_namespace) || {
        block_checks namespace "the namespace $namespace can be read" "$state"
        return 1
    }
    [ -n "$state" ] || return 0
    case $state in
        "found yes "*) ;;
        *)
            say "verify.sh: the namespace $namespace exists and verify.sh did not create it:" \
                "choose another one with --namespace"
            exit 2
            ;;
    esac
    while is_used_by_running_verify "$state"; do
        say "waiting for another verify.sh (on ${state#found yes }) to end"
        sleep 3
        # If the API does not answer, the last known state is used.
        ! answer=$(read_namespace) || state=$answer
    done
    if [ -n "$state" ]; then
        say "deleting the namespace $namespace of an earlier run"
        remove_namespace
    fi
}

# Print nothing if there is no such namespace, else: found yes|"" NODE PID END-OF-ITS-TIME [deleting]
read_namespace() {
    kube get namespace "$namespace" --ignore-not-found \
        -o go-template-file="$here/lib/verify/namespace.gotemplate" 2>&1
}

# A run on this host is checked by its process; a run on another host only by the end of its time.
is_used_by_running_verify() {
    # shellcheck disable=SC2086 # words: found yes node pid end [deleting]
    set -- $1
    [ $# -eq 5 ] || return 1
    [ "$5" -gt "$(now)" ] || return 1
    [ "$3" = "$NODE" ] || return 0
    [ "$4" -ne $$ ] && tr '\0' ' ' 2>/dev/null <"/proc/$4/cmdline" | grep -q verify
}

# The pods are deleted first and by force: otherwise the namespace controller waits for them in long
# steps. The whole deletion has a time limit; a namespace that stays is reported.
remove_namespace() {
    kube -n "$namespace" delete daemonsets --all --wait=false >/dev/null 2>&1
    kube -n "$namespace" delete pods --all --force --grace-period=0 >/dev/null 2>&1
    timeout 60 "$kubectl" --kubeconfig "$admin" --server "$server" delete namespace "$namespace" \
        --ignore-not-found --timeout=50s >"$work/removal" 2>&1 && return 0
    say "verify.sh: the namespace $namespace is still being deleted: $(one_line "$work/removal")"
    return 1
}

create_objects() {
    [ -n "$VERIFY_IMAGE" ] ||
        block_checks workload "an image for the test's pods" 'cluster.yaml has no image with "use: verify"'
    (umask 077 && openssl rand -hex 24 | tr -d '\n' >"$work/secret.value")
    namespace_made=yes
    if ! print_manifest | kube create --validate=false -f - >"$work/creation" 2>&1; then
        block_checks namespace "objects can be created in the namespace $namespace" "$(one_line "$work/creation")"
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
    ! has_feature pod-security-policies || print_policy_binding
    [ -z "$VERIFY_IMAGE" ] || [ -z "$(chosen_checks workload)" ] || print_workload_manifest
}

# What the namespace's label does from Kubernetes 1.23 on: its service account may have any pod.
print_policy_binding() {
    cat <<MANIFEST
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: privileged-pods, namespace: $namespace}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "bundler:pod-security-privileged"}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:serviceaccounts:$namespace"}
MANIFEST
}

# The probe is on the host's network and mounts the host's root, so that it can run the host's ping,
# curl and iptables-save. That needs three capabilities and SELinux type spc_t, but no privileged pod.
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
MANIFEST
    print_web_manifest web
    print_host_user_manifest probe probe "NET_ADMIN, NET_RAW, SYS_CHROOT"
    cat <<MANIFEST
      hostNetwork: true
      dnsPolicy: $(if has_feature coredns; then echo ClusterFirstWithHostNet; else echo Default; fi)
MANIFEST
    ! has_feature network-policy || print_policy_manifest
}

# print_daemonset NAME CONTAINER: one pod on every worker. What follows continues the container.
print_daemonset() {
    cat <<MANIFEST
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: $1, namespace: $namespace}
spec:
  selector: {matchLabels: {app: $1}}
  template:
    metadata: {labels: {app: $1}}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: $2
        image: "$VERIFY_IMAGE"
        imagePullPolicy: Never
MANIFEST
}

# print_web_manifest NAME: a web server.
print_web_manifest() {
    print_daemonset "$1" web
    echo '        ports: [{containerPort: 80}]'
}

# print_host_user_manifest NAME CONTAINER "CAPABILITY, ...": it waits, and can run programs of its host. What follows
# continues the pod.
print_host_user_manifest() {
    print_daemonset "$1" "$2"
    cat <<MANIFEST
        command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 60 & wait; done"]
        securityContext:
          runAsUser: 0
          capabilities: {add: [$3]}
          seLinuxOptions: {type: spc_t}
        volumeMounts: [{name: host, mountPath: /host, readOnly: true}]
      volumes: [{name: host, hostPath: {path: /}}]
MANIFEST
}

# The policies are created before the pods. Clients have the network of pods, and use the programs of their hosts.
print_policy_manifest() {
    cat <<MANIFEST
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guarded, namespace: $namespace}
spec:
  podSelector: {matchLabels: {app: guarded}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: admitted}}}]
    ports: [{port: 80, protocol: TCP}]
  - from: [{podSelector: {matchLabels: {app: other-port}}}]
    ports: [{port: 81, protocol: TCP}]
---
apiVersion: v1
kind: Service
metadata: {name: guarded, namespace: $namespace}
spec:
  selector: {app: guarded}
  ports:
  - {name: http, port: 80, targetPort: 80}
MANIFEST
    print_web_manifest guarded
    for client in admitted refused other-port; do print_host_user_manifest "$client" client SYS_CHROOT; done
}
