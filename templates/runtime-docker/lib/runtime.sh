# Docker, as install.sh and uninstall.sh use it. Every runtime-* overlay has a file of this name.
# needs: work
# sets: runtime_unit
# shellcheck shell=sh disable=SC2034,SC2154 # the scripts and their parts share their variables

runtime_unit=docker.service

ready_runtime() {
    answer=$(docker version --format '{{.Server.Version}}' 2>&1) || {
        printf '%s\n' "$answer" | sed -n '$p'
        return 1
    }
}

# image_id REFERENCE: the digest of its configuration; nothing where it is not there.
image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

# load_archive REFERENCE: from stdin. An archive is loaded whole or not at all, so one that was cut
# short is loaded again. Docker cannot keep an image from the kubelet's garbage collection (but for
# the pause image, which the kubelet spares): kube-images.timer brings back what is gone.
load_archive() { docker load -q 2>&1; }

# Pods outlive the kubelet and Docker (live-restore), so they go by their label.
remove_pods() {
    docker ps -aq --filter label=io.kubernetes.pod.uid 2>/dev/null >"$work/containers"
    xargs -r docker rm -fv <"$work/containers" >/dev/null 2>&1
}

remove_leftovers() {
    systemctl -q disable --now docker.socket 2>/dev/null
    ip link delete docker0 2>/dev/null
}
