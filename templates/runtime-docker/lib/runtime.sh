# The functions of install.sh and uninstall.sh for Docker. Every runtime-* overlay has a file of this name.
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

# image_id REFERENCE: the digest of its configuration; nothing if the runtime does not have the image.
image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

# load_archive REFERENCE: from stdin. Docker loads an archive completely or not at all; an interrupted load is repeated.
# Docker cannot exclude an image from the kubelet's garbage collection, which spares the pause image only:
# kube-images.timer loads them again.
load_archive() { docker load -q 2>&1; }

# try_container DIRECTORY REFERENCE: run and remove one container of this image, which is loaded.
try_container() {
    remove_tried_container
    tried_answer=$(timeout 60 docker run --detach --network none --name bundler-try "$2" 2>&1) && tried_code=0 ||
        tried_code=$?
    remove_tried_container
    [ "$tried_code" -eq 0 ] || printf '%s\n' "$tried_answer" | sed '/docker run --help/d; /^$/d' | sed -n '$p'
    return "$tried_code"
}

remove_tried_container() { timeout 60 docker rm -fv bundler-try >/dev/null 2>&1; }

# Containers run on without the kubelet and Docker (live-restore): those of pods are found by their label.
remove_pods() {
    remove_tried_container
    docker ps -aq --filter label=io.kubernetes.pod.uid 2>/dev/null >"$work/containers"
    xargs -r docker rm -fv <"$work/containers" >/dev/null 2>&1
}

remove_leftovers() {
    systemctl -q disable --now docker.socket 2>/dev/null
    ip link delete docker0 2>/dev/null
}
