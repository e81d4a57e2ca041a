#!/bin/sh
# Ensure that a Docker daemon runs.
#
#   docker.sh up     use a running daemon; without one, as root on Debian, install and start it
#
# The daemon's log is <lab cache>/dockerd.log. A start removes what an earlier run left.
set -eu
. "$(dirname "$0")/common.sh"

main() {
    [ "${1:-}" = up ] || fail "usage: docker.sh up"
    if docker info >/dev/null 2>&1; then
        return 0
    fi
    is_root || fail "no Docker daemon answers. Fix: start Docker, or add yourself to the group docker"
    [ -e /etc/debian_version ] || fail "no Docker daemon answers. Fix: install and start Docker"
    need dockerd:docker.io iptables:iptables
    remove_leftovers
    start_daemon
}

# A killed daemon leaves its pid file, its containerd, and mounts. A container whose root is still
# mounted cannot be removed: "driver failed to remove root filesystem: device or resource busy".
remove_leftovers() {
    if [ -d /run/systemd/system ]; then return 0; fi
    pkill -x dockerd 2>/dev/null || true
    pkill -x containerd 2>/dev/null || true
    pkill -f containerd-shim 2>/dev/null || true
    sleep 1
    while leftover=$(last_leftover) && [ -n "$leftover" ]; do umount -l "$leftover"; done
    rm -rf /run/docker.pid /run/docker /run/containerd /var/run/docker.sock
}

# dockerd binds its directory to itself, which hides the mounts below: unmount one at a time, newest first.
last_leftover() {
    awk '$5 ~ "^(/run/(docker|containerd)|/var/lib/docker)/" || ($4 == $5 && $5 == "/var/lib/docker") { last = $5 } END { print last }' \
        /proc/self/mountinfo
}

start_daemon() {
    mkdir -p "$LAB_CACHE"
    say "starting dockerd"
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        setsid dockerd >"$LAB_CACHE/dockerd.log" 2>&1 </dev/null &
    fi
    tries=0
    until docker info >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -le 60 ] || {
            tail -5 "$LAB_CACHE/dockerd.log" >&2
            fail "dockerd did not come up in 60 s (log: $LAB_CACHE/dockerd.log)"
        }
        sleep 1
    done
    say "Docker $(docker version --format '{{.Server.Version}}') answers"
}

main "$@"
