# The checks of verify.sh: one line each, and the function check_<name> (dashes as underscores).
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

# name|needs|section|what it proves|first command to look with
# needs: nothing; api (an API server that answers); namespace (the test's own); workload (its pods).
print_checks() { "print_${mode}_checks"; }

print_cluster_checks() {
    cat <<TABLE
etcd-members|nothing|etcd|every planned member is in the etcd cluster, no other is, and all answer|ETCDCTL_API=3 $etcdctl --endpoints=$etcd_commas --cacert=$pki/etcd-ca.crt --cert=$pki/apiserver-etcd-client.crt --key=$pki/apiserver-etcd-client.key endpoint health
etcd-registry|nothing|etcd|etcd holds the cluster's objects, under /registry|ETCDCTL_API=3 $etcdctl --endpoints=$etcd_commas --cacert=$pki/etcd-ca.crt --cert=$pki/apiserver-etcd-client.crt --key=$pki/apiserver-etcd-client.key get /registry --prefix --keys-only --limit=20
etcd-refuses-strangers|nothing|etcd|etcd serves nobody who has no client certificate|journalctl -u etcd -n 50 (on that member)
apiserver-ready|nothing|control plane|every API server says that it is ready|journalctl -u kube-apiserver -n 50 (on that node)
endpoint-ready|nothing|control plane|the API answers at the address that every client uses|systemctl status kube-nginx kube-keepalived; ip -4 address
apiserver-metrics|nothing|control plane|every API server gives its metrics to an administrator, at the common endpoint too, and to nobody else|journalctl -u kube-apiserver -n 50 (on that node)
controller-manager-leader|api|control plane|one kube-controller-manager leads and is alive|$kubectl_line -n kube-system get lease kube-controller-manager -o yaml
scheduler-leader|api|control plane|one kube-scheduler leads and is alive|$kubectl_line -n kube-system get lease kube-scheduler -o yaml
controller-manager-metrics|nothing|control plane|every kube-controller-manager gives its metrics over HTTPS, and only to those who may|journalctl -u kube-controller-manager -n 50 (on that node)
scheduler-metrics|nothing|control plane|every kube-scheduler gives its metrics over HTTPS, and only to those who may|journalctl -u kube-scheduler -n 50 (on that node)
ports-open|nothing|network|every node listens on the ports of its roles|ss -lntp (on that node)
ports-closed|nothing|network|no node has a port open to others that takes requests without TLS or a name: $CLOSED_PORTS|ss -lntp (on that node)
secrets-encrypted|namespace|control plane|a Secret is unreadable in etcd, and every API server can read it|grep -o 'encryption-provider-config=[^ ]*' /etc/systemd/system/kube-apiserver.service
audit-log|api|control plane|requests leave entries in the audit log of this node|grep -o 'audit-[^ ]*' /etc/systemd/system/kube-apiserver.service
nodes-ready|api|workers|every planned worker is registered with its address and Ready, and no other node is|$kubectl_line get nodes -o wide
kubelet-certificates|api|workers|every kubelet serves with a certificate from the cluster's authority|$kubectl_line get csr; journalctl -u kube-csr-approver -n 50
kubelet-authorization|nothing|workers|kubelets answer 401 to nobody, 403 to the wrong user, 200 to an administrator|journalctl -u kubelet -n 50 (on that worker)
kubelet-metrics|nothing|workers|every kubelet gives its metrics and its containers' to an administrator|journalctl -u kubelet -n 50 (on that worker)
kubelet-configz|api|workers|every kubelet runs with the settings of the bundle|$kubectl_line get --raw /api/v1/nodes/NODE/proxy/configz
pods-running|workload|workload|a DaemonSet gets one Running pod on every worker|$again pods-running; $kubectl_line -n $namespace describe pods
kubectl-exec|workload|workload|kubectl exec works in a pod on every worker|$again kubectl-exec; $kubectl_line -n $namespace get pods -o wide
pod-network|workload|workload|every worker can ping every pod|ip route; iptables -S FORWARD (on that worker)
service-ip|workload|workload|every worker reaches the Service at its IP|journalctl -u kube-proxy -n 50 (on that worker)
node-ports|workload|workload|every worker reaches the Service at the NodePort of every worker|journalctl -u kube-proxy -n 50 (on that worker)
proxy-rules|workload|network|kube-proxy leads the Service kubernetes to every API server, in the mode that was asked for or, where the kernel has none, in iptables mode|iptables-save -t nat or ipvsadm -ln or nft list table ip kube-proxy (on that worker)
pod-bridge|workload|network|the pods' bridge lies in the subnet that the network gave the worker|ip -4 address; cat /run/flannel/subnet.env /etc/cni/net.d/* (on that worker)
images-local|workload|workload|no image was pulled: all were on the hosts already|$again images-local; $kubectl_line -n $namespace get events
TABLE
    ! has_feature coredns || cat <<TABLE
coredns-ready|api|DNS|CoreDNS has all its replicas, on more than one worker where there are more|$kubectl_line -n kube-system get pods -l k8s-app=kube-dns -o wide
cluster-dns|workload|DNS|a pod on every worker finds kubernetes.default|$kubectl_line -n kube-system logs -l k8s-app=kube-dns --tail=20
TABLE
    ! has_feature metrics-server || cat <<TABLE
metrics-server|api|metrics|kubectl top shows every worker|$kubectl_line get apiservice v1beta1.metrics.k8s.io -o yaml; $kubectl_line -n kube-system logs -l k8s-app=metrics-server --tail=20
TABLE
}

# With --node: this host by itself, whatever the others do.
print_node_checks() {
    cat <<TABLE
host-units|nothing|host|every unit of this node runs, and starts at boot|systemctl status $UNITS
host-files|nothing|host|every installed file is as the bundle has it|/opt/k8s/bundle/MANIFEST; run install.sh again
host-certificates|nothing|host|no certificate on this host ends within 30 days|openssl x509 -noout -enddate -in FILE
host-serving|nothing|host|every server of this node shows the certificate in its file|systemctl restart UNIT
host-kernel|nothing|host|kernel settings hold, modules are there, swap is off|sysctl KEY; lsmod; swapon --show
host-ports|nothing|host|the ports of this node's units listen, and no unsafe one does|ss -lntp
TABLE
    ! has_role etcd || echo "host-etcd|nothing|etcd|the member here is healthy|journalctl -u etcd -n 50"
    ! has_role control-plane || echo "host-apiserver|nothing|control plane|the API server here is ready|journalctl -u kube-apiserver -n 50"
    ! has_role worker || cat <<TABLE
host-kubelet|nothing|worker|the kubelet here serves with a certificate from the cluster's authority|journalctl -u kubelet -n 50
host-images|nothing|worker|the runtime holds every image of the bundle|crictl images or docker images; run install.sh again
TABLE
}

# With --failover: each leader is stopped, and started again.
print_failover_checks() {
    cat <<TABLE
controller-manager-failover|api|failover|another kube-controller-manager takes the lead when this one stops|journalctl -u kube-controller-manager -n 50
scheduler-failover|api|failover|another kube-scheduler takes the lead when this one stops|journalctl -u kube-scheduler -n 50
TABLE
}

has_role() { case " $ROLES " in *" $1 "*) ;; *) return 1 ;; esac }

has_feature() { case " ${FEATURES:-} " in *" $1 "*) ;; *) return 1 ;; esac }

# is_check NAME
is_check() { print_checks | CHECK=$1 awk -F'|' '$1 "" == ENVIRON["CHECK"] "" { found = 1 } END { exit !found }'; }

# The names of the chosen checks (all, or those of --only) that need one of the given things.
chosen_checks() {
    print_checks | while IFS='|' read -r row_name row_needs row_rest; do
        case " $* " in *" $row_needs "*) ;; *) continue ;; esac
        case " $only " in "  " | *" $row_name "*) printf '%s\n' "$row_name" ;; esac
    done
}

list_checks() {
    print_checks | while IFS='|' read -r row_name row_needs row_section row_proves row_look; do
        printf '%-26s %s\n' "$row_name" "$row_proves"
    done
}
