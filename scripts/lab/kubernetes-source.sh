# shellcheck shell=sh
# Sourced in the builder container: the sources of Kubernetes from Debian's source package, and the environment to
# compile them.

# enter_kubernetes_source VERSION: unpack the sources, and go there.
# GOPATH mode: the vendor directory of Debian's source tree has no matching module file.
enter_kubernetes_source() {
    use_host_apt
    apt-get install -qq -y golang-1.19-go golang-github-modern-go-reflect2-dev gcc libc6-dev make rsync jq dpkg-dev git \
        ca-certificates >/tmp/apt.log 2>&1 || {
        tail -20 /tmp/apt.log
        exit 1
    }
    mkdir -p /build
    cd /build || exit 1
    apt-get source -qq --download-only kubernetes >/tmp/source.log 2>&1 || {
        tail /tmp/source.log
        exit 1
    }
    dpkg-source --no-check -x kubernetes_*.dsc tree >/dev/null
    # reflect2 before 1.0.2, compiled with Go 1.18 or newer, ends an API server that writes some custom objects.
    rm -r tree/vendor/github.com/modern-go/reflect2
    cp -r /usr/share/gocode/src/github.com/modern-go/reflect2 tree/vendor/github.com/modern-go/

    export PATH="/usr/lib/go-1.19/bin:$PATH" GOPATH=/go GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' GOTOOLCHAIN=local
    mkdir -p /go/src/k8s.io
    ln -s /build/tree /go/src/k8s.io/kubernetes
    minor=${1%.*}
    cat >/build/version <<VERSION
KUBE_GIT_COMMIT=0000000000000000000000000000000000000000
KUBE_GIT_TREE_STATE=archive
KUBE_GIT_VERSION=v$1
KUBE_GIT_MAJOR=${minor%%.*}
KUBE_GIT_MINOR=${minor#*.}
VERSION
    cd /go/src/k8s.io/kubernetes || exit 1
}

# make_kubernetes DIRECTORY PACKAGE...: compile the packages, and copy their programs to the directory.
make_kubernetes() {
    target=$1
    shift
    make WHAT="$*" KUBE_GIT_VERSION_FILE=/build/version GOLDFLAGS='-s -w' GOFLAGS=-trimpath
    mkdir -p "$target"
    for package in "$@"; do
        program=${package##*/}
        find _output -type f -name "$program" -path '*bin*' -exec cp {} "$target/" \;
        test -x "$target/$program"
    done
}
