#!/bin/sh
# Prepare a machine: the virtual environment, and the packages that the tests use.
#
#   setup.sh venv      .venv with bundler, editable, and its development tools
#   setup.sh check     what `make check` needs in addition
#   setup.sh lab       what the lab needs: Docker, artifacts, the image of its hosts
#   setup.sh machines  what machines with kernels of their own need: QEMU, and the lab's artifacts
#
# As root on Debian it installs missing packages; elsewhere it names them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
. "$here/lab/common.sh"

main() {
    case ${1:-} in
        venv) make_venv ;;
        check)
            need shellcheck:shellcheck dash:dash busybox:busybox openssl:openssl
            need_if_possible rpmbuild:rpm gpg:gnupg zsh:zsh fish:fish
            keep_tests_files_in_memory
            ;;
        lab)
            need curl:curl openssl:openssl update-ca-certificates:ca-certificates
            need_if_possible dnf:dnf createrepo_c:createrepo-c
            unpack_program docker-registry docker-registry
            unpack_program nginx nginx
            "$here/lab/docker.sh" up
            "$here/lab/artifacts.sh"
            "$here/lab/hosts.sh" root
            "$here/lab/hosts.sh" image
            mkdir -p "$project/.lab"
            for made in images packages; do ln -sfn "$LAB_CACHE/$made" "$project/.lab/$made"; done
            ;;
        machines)
            need qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs \
                ssh:openssh-client qemu-system-aarch64:qemu-system-arm debootstrap:debootstrap cpio:cpio
            ;;
        *)
            sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
}

# Tests write and delete millions of small files, which takes a third of their time on a disk. As root, with memory to
# spare, they are in memory; otherwise, and in a container that may not mount, they stay on the disk.
keep_tests_files_in_memory() {
    files=${HOME:-/root}/.cache/bundler-tests
    is_root && ! mountpoint -q "$files" || return 0
    [ "$(awk '$1 == "MemAvailable:" { print int($2 / 1048576) }' /proc/meminfo)" -ge 12 ] || return 0
    mkdir -p "$files"
    mount -t tmpfs -o mode=0700,size=50% bundler-tests "$files" 2>/dev/null || return 0
    say "files of tests are in memory: $files (umount it to have them on the disk)"
}

# The copy of pyproject.toml is written last: an unfinished environment is made again.
make_venv() {
    cmp -s "$project/pyproject.toml" "$project/.venv/.pyproject.toml" && return 0
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed, not $(python3 --version)"
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages ' python3-venv'
    say "making the virtual environment .venv"
    python3 -m venv "$project/.venv"
    "$project/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "${project}[dev,docs]"
    cp "$project/pyproject.toml" "$project/.venv/.pyproject.toml"
}

main "$@"
