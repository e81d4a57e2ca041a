#!/bin/sh
# Run a command in a temporary Debian 12 container that can download Debian packages.
#
#   builder.sh image                     make the container image, if it is missing
#   builder.sh run DIR COMMAND [ARG...]  run with DIR mounted at /lab and this directory at /scripts
#
# Builds do not change the machine itself. On Debian 12 the container uses the
# machine's own package sources (mounted read-only), elsewhere those of the image debian:12.
set -eu
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
image=bundler-lab-builder:1

main() {
    case "${1:-}" in
        image) make_image ;;
        run) shift && make_image && run_in_container "$@" ;;
        *) fail "usage: builder.sh image | run DIR COMMAND [ARG...]" ;;
    esac
}

make_image() {
    docker image inspect $image >/dev/null 2>&1 && return 0
    if is_root && is_debian12; then
        need mmdebstrap:mmdebstrap
        say "builder: bootstrapping Debian 12 from this machine's package sources"
        # shellcheck disable=SC2046 # one word a file
        mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates,mmdebstrap,xz-utils \
            --aptopt='Acquire::Check-Valid-Until "false"' bookworm - $(apt_sources) </dev/null |
            docker import - $image >/dev/null
    else
        docker pull debian:12 >/dev/null && docker tag debian:12 $image
    fi
}

# The machine's own package sources, as mmdebstrap's MIRROR arguments.
apt_sources() {
    find /etc/apt/sources.list /etc/apt/sources.list.d -maxdepth 1 -type f \
        \( -name 'debian*.sources' -o -name 'sources.list' -o -name 'debian*.list' \) 2>/dev/null
}

run_in_container() {
    dir=$1
    shift
    # SYS_ADMIN: mmdebstrap mounts /proc in the trees that it makes
    set -- --rm --network host --cap-add SYS_ADMIN --security-opt seccomp=unconfined \
        --security-opt apparmor=unconfined -v "$dir:/lab" -v "$here:/scripts:ro" -w /lab "$image" "$@"
    if is_debian12; then
        set -- -v /etc/apt/sources.list.d:/host-apt/sources.list.d:ro -v /etc/apt/apt.conf.d:/host-apt/apt.conf.d:ro \
            -v /usr/share/keyrings:/usr/share/keyrings:ro -v /etc/ssl/certs:/etc/ssl/certs:ro \
            -v /usr/share/ca-certificates:/usr/share/ca-certificates:ro "$@"
        [ ! -f /etc/apt/sources.list ] || set -- -v /etc/apt/sources.list:/host-apt/sources.list:ro "$@"
    fi
    docker run "$@"
}

main "$@"
