#!/bin/sh
# The lab's hosts: containers that run systemd, on a network without a route to the internet.
#
#   hosts.sh root                      bootstrap their root file system and download the packages of
#                                      bundles, if the recipe changed
#   hosts.sh image                     make the host image from it
#   hosts.sh up NAME=ADDRESS...        make the network and boot the hosts
#   hosts.sh boot NAME=ADDRESS         boot one more host
#   hosts.sh down                      remove hosts, their volumes, and the network
#   hosts.sh shell NAME                a root shell on a host
#
# LAB_NETWORK   name of the network and its bridge, and prefix of host names (default bundlerlab)
# LAB_SUBNET    its addresses (default 172.30.20.0/24)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
LAB_NETWORK=${LAB_NETWORK:-bundlerlab}
LAB_SUBNET=${LAB_SUBNET:-172.30.20.0/24}

main() {
    command=${1:-}
    [ $# -eq 0 ] || shift
    case $command in
        root) ensure_root ;;
        image) ensure_image ;;
        up) ensure_image && ensure_network && boot_all "$@" ;;
        boot) boot "$1" && await "${1%%=*}" ;;
        down) take_down ;;
        shell) exec docker exec -it "$LAB_NETWORK-$1" bash ;;
        *)
            sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
}

recipe() { cat "$here/make-host-root.sh" "$here/host/etc/systemd/system/lab-fixups.service" "$here/host/usr/local/lib/lab/fixups" "$LAB_CACHE/source.txt"; }
image_name() { printf 'bundler-lab-host:%s\n' "$(recipe | sha256sum | cut -c1-12)"; }

ensure_root() {
    [ "$(cat "$LAB_CACHE/rootfs/host.key" 2>/dev/null)" != "$(image_name)" ] || return 0
    say "bootstrapping the root file system of the lab's hosts, and downloading the packages of bundles"
    mkdir -p "$LAB_CACHE/rootfs"
    rm -f "$LAB_CACHE/rootfs/host.key"
    "$here/builder.sh" run "$LAB_CACHE" sh /scripts/make-host-root.sh
    image_name >"$LAB_CACHE/rootfs/host.key"
}

ensure_image() {
    name=$(image_name)
    docker image inspect "$name" >/dev/null 2>&1 && return 0
    ensure_root
    docker import --change 'CMD ["/sbin/init"]' "$LAB_CACHE/rootfs/host.tar" "$name" >/dev/null
    say "host image $name made"
}

# Internal: Docker gives it no route and no masquerading. Its isolation also drops pods' packets
# between hosts (addresses outside the subnet) while bridges call iptables, so DOCKER-USER accepts them.
ensure_network() {
    docker network inspect "$LAB_NETWORK" >/dev/null 2>&1 ||
        docker network create --internal --subnet "$LAB_SUBNET" -o com.docker.network.bridge.name="$LAB_NETWORK" "$LAB_NETWORK" >/dev/null
    bridge_rule -C 2>/dev/null || bridge_rule -I ||
        say "cannot add the DOCKER-USER rule: pods of different hosts may not reach one another"
}
bridge_rule() { iptables "$1" DOCKER-USER -i "$LAB_NETWORK" -o "$LAB_NETWORK" -j ACCEPT; }

boot_all() {
    for host in "$@"; do boot "$host"; done
    for host in "$@"; do await "${host%%=*}"; done
}

boot() {
    name=${1%%=*} address=${1#*=}
    docker rm -fv "$LAB_NETWORK-$name" >/dev/null 2>&1 || true
    set -- --detach --name "$LAB_NETWORK-$name" --hostname "$name" --label "bundler-lab=$LAB_NETWORK" \
        --network "$LAB_NETWORK" --ip "$address" --cgroupns=private --tmpfs /run --tmpfs /tmp:exec \
        --tmpfs /run/lock -v /var -v /opt -v /lib/modules:/lib/modules:ro --stop-signal SIGRTMIN+3 \
        --stop-timeout 20 -e container=docker
    [ -d /lib/modules ] || mkdir -p /lib/modules
    image=$(image_name)
    if has_sys_resource "$image"; then
        docker run --privileged "$@" "$image" >/dev/null
    else
        for capability in $(capabilities); do set -- --cap-add "$capability" "$@"; done
        docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
            --security-opt systempaths=unconfined --device-cgroup-rule 'a *:* rwm' "$@" "$image" >/dev/null
    fi
}

# Every capability except SYS_RESOURCE, which this machine may not grant.
capabilities() {
    echo CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
        NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
        SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE \
        AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
}

await() {
    tries=0
    while :; do
        state=$(docker exec "$LAB_NETWORK-$1" systemctl is-system-running 2>/dev/null || true)
        case $state in running | degraded) break ;; esac
        tries=$((tries + 1))
        [ "$tries" -le 60 ] || fail "$1 did not boot in 60 s (state: ${state:-none})"
        sleep 1
    done
    say "$1 is up ($state)"
}

take_down() {
    hosts=$(docker ps -aq --filter "label=bundler-lab=$LAB_NETWORK")
    # shellcheck disable=SC2086 # one word a container
    [ -z "$hosts" ] || docker rm -fv $hosts >/dev/null
    docker network rm "$LAB_NETWORK" >/dev/null 2>&1 || true
    while bridge_rule -D 2>/dev/null; do :; done
}

main "$@"
