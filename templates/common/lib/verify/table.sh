# The checks of verify.sh. A row names the check; the function check_<name> (dashes as underscores) runs it.
# needs: checks etcd_commas etcdctl kubectl_line mode namespace only pki rerun_line
# sets: row_needs
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# row NAME NEEDS SECTION HOLDS RUN: one check.
#   NEEDS   nothing, or what must exist before the check can run: api (an API server that is ready),
#           namespace (the test's namespace), workload (the test's pods)
#   HOLDS   what is true when the check passes
#   RUN     the first command to run when it fails
# Every row starts with `row NAME` on a line of its own: tests and documentation read the names here.
row() { printf '%s|%s|%s|%s|%s\n' "$@"; }

# print_checks: the rows of the chosen mode (cluster, node or failover), fields separated by "|".
print_checks() { "print_${mode}_checks"; }

print_cluster_checks() {
    etcdctl_line="ETCDCTL_API=3 $etcdctl --endpoints=$etcd_commas --cacert=$pki/etcd-ca.crt"
    etcdctl_line="$etcdctl_line --cert=$pki/apiserver-etcd-client.crt --key=$pki/apiserver-etcd-client.key"
    network_line=''
    [ -z "${NETWORK_ADDON:-}" ] ||
        network_line="journalctl -u kube-addons -n 50; $kubectl_line get pods -A -o wide (of add-on $NETWORK_ADDON)"
    proxy_line='journalctl -u kube-proxy -n 50 (on that worker)'
    has_feature kube-proxy || proxy_line=$network_line
    row etcd-members nothing etcd \
        "every planned member is in the etcd cluster and healthy, and there is no other member" \
        "$etcdctl_line endpoint health"
    row etcd-alarms nothing etcd \
        "no alarm of etcd is on: with NOSPACE it accepts no write" \
        "$etcdctl_line alarm list; /opt/k8s/libexec/etcd-maintain.sh defrag (on each member, one after another)"
    row etcd-registry nothing etcd \
        "etcd holds the cluster's objects under /registry" \
        "$etcdctl_line get /registry --prefix --keys-only --limit=20"
    row etcd-refuses-strangers nothing etcd \
        "etcd refuses clients without a client certificate" \
        "journalctl -u etcd -n 50 (on that member)"
    row apiserver-ready nothing 'control plane' \
        "every API server is ready" \
        "journalctl -u kube-apiserver -n 50 (on that node)"
    row endpoint-ready nothing 'control plane' \
        "the API answers at the endpoint that all clients use" \
        "systemctl status kube-nginx kube-keepalived; ip -4 address"
    row apiserver-metrics nothing 'control plane' \
        "every API server, and the endpoint, gives its metrics to an administrator and to nobody else" \
        "journalctl -u kube-apiserver -n 50 (on that node)"
    row apiserver-authorization nothing 'control plane' \
        "every API server, and the endpoint, refuses clients without credentials or rights, and unknown tokens" \
        "$kubectl_line get clusterrolebindings,rolebindings -A -o wide"
    row controller-manager-leader api 'control plane' \
        "one kube-controller-manager is the leader and renews its lease" \
        "$kubectl_line -n kube-system get lease kube-controller-manager -o yaml"
    row scheduler-leader api 'control plane' \
        "one kube-scheduler is the leader and renews its lease" \
        "$kubectl_line -n kube-system get lease kube-scheduler -o yaml"
    row controller-manager-metrics nothing 'control plane' \
        "every kube-controller-manager gives its metrics over HTTPS, to authorized clients only" \
        "journalctl -u kube-controller-manager -n 50 (on that node)"
    row scheduler-metrics nothing 'control plane' \
        "every kube-scheduler gives its metrics over HTTPS, to authorized clients only" \
        "journalctl -u kube-scheduler -n 50 (on that node)"
    row ports-open nothing network \
        "every node listens on the ports of its roles" \
        "ss -lntp (on that node)"
    row ports-closed nothing network \
        "no node has a port open that serves without TLS or authentication: $CLOSED_PORTS" \
        "ss -lntp (on that node)"
    row secrets-encrypted namespace 'control plane' \
        "a Secret is encrypted in etcd, and every API server can read it" \
        "grep -o 'encryption-provider-config=[^ ]*' /etc/systemd/system/kube-apiserver.service"
    row secret-keys nothing 'control plane' \
        "every Secret in etcd is under the key with which API servers write" \
        "journalctl -u kube-rotation -n 50 (on every control plane)"
    row audit-log api 'control plane' \
        "requests are logged in the audit log of this node" \
        "grep -o 'audit-[^ ]*' /etc/systemd/system/kube-apiserver.service"
    row nodes-ready api workers \
        "every planned worker is registered with its address and Ready, and there is no other node" \
        "$kubectl_line get nodes -o wide"
    row node-labels api workers \
        "every worker has the labels, annotations and taints of cluster.yaml, and waits for none of them" \
        "journalctl -u kube-node-labeler -n 50 (on every control plane); $kubectl_line describe nodes"
    row kubelet-certificates api workers \
        "every kubelet serves with a certificate from the cluster's CA" \
        "$kubectl_line get csr; journalctl -u kube-csr-approver -n 50"
    row kubelet-authorization nothing workers \
        "kubelets answer 401 without a certificate, 403 to the wrong user, 200 to an administrator" \
        "journalctl -u kubelet -n 50 (on that worker)"
    row kubelet-metrics nothing workers \
        "every kubelet gives an administrator its own metrics and its containers' metrics" \
        "journalctl -u kubelet -n 50 (on that worker)"
    row kubelet-configz api workers \
        "every kubelet runs with the settings of the bundle" \
        "$kubectl_line get --raw /api/v1/nodes/NODE/proxy/configz"
    row pods-running workload workload \
        "a DaemonSet gets one Running pod on every worker" \
        "$rerun_line pods-running; $kubectl_line -n $namespace describe pods"
    row kubectl-exec workload workload \
        "kubectl exec works in a pod on every worker" \
        "$rerun_line kubectl-exec; $kubectl_line -n $namespace get pods -o wide"
    row pod-network workload workload \
        "every worker can ping every pod" \
        "${network_line:-ip route; iptables -S FORWARD (on that worker)}"
    row service-ip workload workload \
        "every worker reaches a Service at its cluster IP" \
        "$proxy_line"
    row node-ports workload workload \
        "every worker reaches a Service at the NodePort of every worker" \
        "$proxy_line"
    ! has_feature kube-proxy || print_proxy_checks
    row version-skew workload 'control plane' \
        "kubelets, kube-proxies, controller managers and schedulers are neither newer than an API server nor too old" \
        "$kubectl_line get nodes; /opt/k8s/bundle/install.sh --list (on that node)"
    has_feature network-addon || print_bridge_checks
    row images-local workload workload \
        "no image was pulled: all images were on the hosts" \
        "$rerun_line images-local; $kubectl_line -n $namespace get events"
    ! has_feature network-policy || print_policy_checks
    ! has_feature coredns || print_dns_checks
    ! has_feature metrics-server || print_metrics_checks
    ! has_feature addons || print_addon_checks
    ! has_feature registry || print_registry_checks
}

print_registry_checks() {
    row registry-images nothing registry \
        "every host of the registry serves the bundle's images to everybody, and accepts no write at that port" \
        "journalctl -u kube-registry -u kube-registry-nginx -u kube-registry-seed -n 50 (on that host)"
}

print_addon_checks() {
    row addons api add-ons \
        "every add-on of cluster.yaml is ready and unchanged, and the objects of its verify have their condition" \
        "journalctl -u kube-addons -n 50; $kubectl_line -n kube-system get configmap -l bundler/addon -o yaml"
}

print_proxy_checks() {
    row proxy-rules workload network \
        "kube-proxy routes the Service kubernetes to every API server, in the configured mode or in iptables mode" \
        "iptables-save -t nat or ipvsadm -ln or nft list table ip kube-proxy (on that worker)"
}

print_bridge_checks() {
    row pod-bridge workload network \
        "the bridge of the pods has an address in the worker's pod subnet, and every pod is attached to it" \
        "ip -4 address; ip link; cat /run/flannel/subnet.env /etc/cni/net.d/* (on that worker)"
}

print_policy_checks() {
    policy_line='journalctl -u kube-router -u kube-pod-guard -n 50; iptables -S'
    policy_line="$policy_line; ipset list kube-pod-guard (on that worker)"
    has_feature kube-router || policy_line=$network_line
    row network-policy workload network \
        "on every worker a NetworkPolicy admits one pod on one port: no other pod, port or node, nor by a Service" \
        "$policy_line"
}

print_dns_checks() {
    row coredns-ready api DNS \
        "all replicas of CoreDNS are ready, on at least two workers if there are two" \
        "$kubectl_line -n kube-system get pods -l k8s-app=kube-dns -o wide"
    row cluster-dns workload DNS \
        "a pod on every worker resolves kubernetes.default" \
        "$kubectl_line -n kube-system logs -l k8s-app=kube-dns --tail=20"
}

print_metrics_checks() {
    server_logs="$kubectl_line -n kube-system logs -l k8s-app=metrics-server --tail=20"
    row metrics-server api metrics \
        "kubectl top shows every worker" \
        "$kubectl_line get apiservice v1beta1.metrics.k8s.io -o yaml; $server_logs"
}

# With --node: this host alone; no other host has to work.
print_node_checks() {
    row host-units nothing host \
        "every unit of this node runs, and starts at boot" \
        "systemctl status $UNITS"
    row host-files nothing host \
        "every installed file is unchanged" \
        "/opt/k8s/bundle/MANIFEST; run install.sh again"
    row host-certificates nothing host \
        "no certificate on this host expires within 30 days" \
        "openssl x509 -noout -enddate -in FILE"
    row host-serving nothing host \
        "every server of this node uses the certificate in its file" \
        "systemctl restart UNIT"
    row host-kernel nothing host \
        "kernel settings are as required, modules are loaded, swap is off" \
        "sysctl KEY; lsmod; swapon --show"
    row host-overrides nothing host \
        "no file of the host wins over the bundle's, now or at the next boot: sysctl, drop-ins of units, CNI, modules" \
        "systemd-analyze cat-config sysctl.d; systemctl cat UNIT; ls /etc/cni/net.d /etc/modprobe.d"
    row host-ports nothing host \
        "the ports of this node's units listen, and no unsafe port does" \
        "ss -lntp"
    [ -z "${UNIT_USERS:-}" ] || print_user_checks
    ! has_role etcd || print_etcd_host_checks
    ! has_role control-plane || print_control_plane_host_checks
    ! has_role worker || print_worker_host_checks
}

print_user_checks() {
    row host-users nothing host \
        "units run as their users, which can read and write what is theirs; secrets on disk are for root only" \
        "systemctl restart UNIT; ls -lR /run/bundler"
}

print_etcd_host_checks() {
    row host-etcd nothing etcd \
        "the etcd member on this host is healthy" \
        "journalctl -u etcd -n 50"
}

print_control_plane_host_checks() {
    row host-apiserver nothing 'control plane' \
        "the API server on this host is ready" \
        "journalctl -u kube-apiserver -n 50"
}

print_worker_host_checks() {
    row host-kubelet nothing worker \
        "the kubelet on this host serves with a certificate from the cluster's CA" \
        "journalctl -u kubelet -n 50"
    row host-runtime nothing worker \
        "the container runtime runs and removes a container of the pause image" \
        "journalctl -u docker -u containerd -n 50"
    row host-images nothing worker \
        "the container runtime has every image of the bundle" \
        "crictl images or docker images; run install.sh again"
}

# With --failover: each leader is stopped, and started again.
print_failover_checks() {
    row controller-manager-failover api failover \
        "another kube-controller-manager becomes the leader when this one stops" \
        "journalctl -u kube-controller-manager -n 50"
    row scheduler-failover api failover \
        "another kube-scheduler becomes the leader when this one stops" \
        "journalctl -u kube-scheduler -n 50"
}

has_role() { case " $ROLES " in *" $1 "*) ;; *) return 1 ;; esac }

has_feature() { case " ${FEATURES:-} " in *" $1 "*) ;; *) return 1 ;; esac }

# read_row NAME: set the variables row_* to the fields of this check; return 1 if there is no such check.
read_row() {
    while IFS='|' read -r row_name row_needs row_section row_holds row_run; do
        [ "$row_name" != "$1" ] || return 0
    done <<ROWS
$checks
ROWS
    return 1
}

# chosen_checks NEED...: the names of the checks to run (all, or those of --only) that need one of these.
chosen_checks() {
    while IFS='|' read -r row_name row_needs row_section row_holds row_run; do
        case " $* " in *" $row_needs "*) ;; *) continue ;; esac
        case " $only " in "  " | *" $row_name "*) printf '%s\n' "$row_name" ;; esac
    done <<ROWS
$checks
ROWS
}

list_checks() {
    while IFS='|' read -r row_name row_needs row_section row_holds row_run; do
        printf '%-26s %s\n' "$row_name" "$row_holds"
    done <<ROWS
$checks
ROWS
}
