# The functions of install.sh and uninstall.sh for containerd. Every runtime-* overlay has a file of this name.
# needs: nothing
# sets: runtime_unit
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts and their parts share their variables

runtime_unit=containerd.service

ctr_pods() { ctr -n k8s.io "$@"; }

ready_runtime() {
    answer=$(ctr_pods images ls -q 2>&1) || {
        printf '%s\n' "$answer" | sed -n '$p'
        return 1
    }
}

# image_id REFERENCE: the digest of its configuration; nothing if the runtime does not have the image.
image_id() {
    manifest=$(ctr_pods images ls "name==$1" 2>/dev/null | awk 'NR == 2 { print $3 }')
    [ -n "$manifest" ] || return 1
    ctr_pods content get "$manifest" 2>/dev/null | tr -d ' \n\t' |
        sed -n 's/.*"config":{\([^}]*\)}.*/\1/p' | sed -n 's/.*"digest":"\([^"]*\)".*/\1/p'
}

# load_archive REFERENCE: from stdin. An interrupted import is repeated; blobs that are there are not written again.
# The kubelet does not remove pinned images (containerd 1.7 and later); before, kube-images.timer loads them again.
load_archive() {
    ctr_pods images import - 2>&1 || return 1
    ctr_pods images label "$1" io.cri-containerd.pinned=pinned >/dev/null 2>&1 || true
}

# try_container DIRECTORY REFERENCE: run and remove one container of this image of the bundle, in a namespace of its
# own, where neither the kubelet nor its pods are. With its image and cgroups nothing of it stays.
try_container() {
    remove_tried_container
    tried_answer=$(write_archive "$1" | ctr_try images import - 2>&1) || {
        printf '%s\n' "$tried_answer" | sed -n '$p'
        return 1
    }
    tried_answer=$(ctr_try run --detach "$2" try 2>&1) && tried_code=0 || tried_code=$?
    remove_tried_container
    [ "$tried_code" -eq 0 ] || printf '%s\n' "$tried_answer" | sed -n '$p'
    return "$tried_code"
}

ctr_try() { timeout 60 ctr -n bundler-try "$@"; }

remove_tried_container() {
    ctr_try tasks kill -s KILL try >/dev/null 2>&1 && sleep 1
    ctr_try tasks delete -f try >/dev/null 2>&1
    ctr_try containers delete try >/dev/null 2>&1
    for tried_image in $(ctr_try images ls -q 2>/dev/null); do
        ctr_try images remove --sync "$tried_image" >/dev/null 2>&1
    done
    for tried_cgroup in /sys/fs/cgroup/bundler-try /sys/fs/cgroup/*/bundler-try; do
        [ ! -d "$tried_cgroup" ] || rmdir "$tried_cgroup" 2>/dev/null
    done
    ctr namespaces remove bundler-try >/dev/null 2>&1
}

# Containers run on without the kubelet and containerd, so each one is stopped.
remove_pods() {
    remove_tried_container
    for container in $(ctr_pods containers ls -q 2>/dev/null); do
        ctr_pods tasks kill -s KILL "$container" >/dev/null 2>&1
    done
    sleep 1
    for container in $(ctr_pods containers ls -q 2>/dev/null); do
        ctr_pods tasks delete -f "$container" >/dev/null 2>&1
        ctr_pods containers delete "$container" >/dev/null 2>&1
    done
}

# Shims end with their tasks; their mounts and network namespaces remain.
remove_leftovers() {
    for process in /proc/[0-9]*; do
        case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in
            /opt/k8s/bin/containerd-shim*) kill "${process#/proc/}" ;;
        esac
    done
    list_runtime_mounts | sort -r | while read -r mount; do umount -l "$mount"; done
    # what is still mounted there may have data
    [ -n "$(list_runtime_mounts || echo unknown)" ] || rm -rf /run/containerd /run/netns/cni-*
}

# The names of containers and network namespaces have no spaces.
list_runtime_mounts() { awk '$2 ~ "^/run/(containerd|netns/cni-)" { print $2 }' /proc/self/mounts; }
