#!/bin/sh
# Prepare a machine: the virtual environment, and the packages that the tests use.
#
#   setup.sh venv      .venv with bundler, editable, and its development tools
#   setup.sh check     what `make check` needs in addition
#   setup.sh lab       what the lab needs: Docker, artifacts, the image of its hosts
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
            need_if_possible rpmbuild:rpm gpg:gnupg
            ;;
        lab)
            need curl:curl openssl:openssl update-ca-certificates:ca-certificates
            need_if_possible dnf:dnf createrepo_c:createrepo-c
            unpack_program docker-registry docker-registry
            "$here/lab/docker.sh" up
            "$here/lab/artifacts.sh"
            "$here/lab/hosts.sh" root
            "$here/lab/hosts.sh" image
            mkdir -p "$project/.lab"
            for made in images packages; do ln -sfn "$LAB_CACHE/$made" "$project/.lab/$made"; done
            ;;
        *)
            sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
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
