#!/bin/sh
# Inside the builder container: the root file systems of the images in images.tsv, as /lab/conformance/roots/ROOT.tar.
#
#   make-roots.sh VERSION     reads /lab/build/{kubernetes,conformance}-VERSION, which were compiled before
set -eu
. /scripts/builder-apt.sh
here=/scripts/conformance
kubernetes=/lab/build/kubernetes-$1 programs=/lab/build/conformance-$1
work=/tmp/roots out=/lab/conformance/roots

# Programs that Alpine Linux and its packages have in upstream's agnhost. dash is the shell: Debian's busybox runs its
# own nc and ip instead of those in PATH.
tools=busybox-static,libc-bin,dash,bash,curl,netcat-openbsd,bind9-dnsutils,iproute2,iperf

main() {
    use_host_apt
    apt-get install -qq -y mmdebstrap >/dev/null 2>&1
    rm -rf $out.new
    mkdir -p $work $out.new
    grep -v '^#' $here/images.tsv | cut -f 2 | sort -u >$work/list
    while read -r root; do
        mkdir $work/"$root"
        "make_$root" $work/"$root"
        tar -C $work/"$root" --sort=name --owner=0 --group=0 --mtime=@0 --exclude='./dev/*' -cf "$out.new/$root.tar" .
    done <$work/list
    rm -rf $out
    mv $out.new $out
}

make_pause() { cp "$kubernetes/pause" "$1/"; }

make_busybox() { unpack "$1" busybox-static; }

make_dnsutils() { unpack "$1" $tools; }

make_agnhost() {
    unpack "$1" $tools
    cp "$programs/agnhost" "$programs"/porter/localhost.* "$1/"
    ln -s agnhost "$1/agnhost-2"
    mkdir "$1/uploads"
}

make_nautilus() { make_agnhost "$1" && cp "$programs"/nautilus/* "$1/"; }

make_kitten() { make_agnhost "$1" && cp "$programs"/kitten/* "$1/"; }

make_nonewprivs() {
    make_busybox "$1"
    mkdir -p "$1/usr/local/bin"
    cp "$programs/nnp" "$1/usr/local/bin/"
    chmod 6755 "$1/usr/local/bin/nnp"
}

make_sample_apiserver() {
    make_busybox "$1"
    cp "$programs/sample-apiserver" "$1/"
}

make_etcd() {
    unpack "$1" busybox-static,etcd-server
    mkdir -p "$1/usr/local/bin"
    mv "$1/usr/bin/etcd" "$1/usr/local/bin/"
}

make_httpd() {
    unpack "$1" busybox-static,apache2-bin
    cp -r $here/images/httpd/. "$1/"
}

make_nginx() {
    unpack "$1" busybox-static,nginx
    cp -r $here/images/nginx/. "$1/"
}

# unpack DIRECTORY PACKAGES: the packages and what they depend on, without their scripts, and busybox for each
# program that is missing then.
unpack() {
    # shellcheck disable=SC2046 # one word a file
    mmdebstrap --quiet --mode=root --variant=extract --include="$2" --aptopt='Acquire::Check-Valid-Until "false"' \
        bookworm "$1" $(find /etc/apt/sources.list /etc/apt/sources.list.d -type f 2>/dev/null) </dev/null
    rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/share/perl* "$1"/usr/lib/*/perl* \
        "$1"/etc/apt "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/var/lib/apt "$1"/var/lib/dpkg "$1"/var/cache
    mkdir -p "$1/bin" "$1/root" "$1/run" "$1/tmp" "$1/var/log" "$1/var/tmp"
    chmod 1777 "$1/tmp" "$1/var/tmp"
    cp -r $here/images/common/. "$1/"
    for applet in $("$1/bin/busybox" --list); do
        has_program "$1" "$applet" || ln -s /bin/busybox "$1/bin/$applet"
    done
    if [ -e "$1/bin/nc.openbsd" ]; then ln -sf nc.openbsd "$1/bin/nc"; fi
    if [ -e "$1/bin/dash" ]; then ln -sf dash "$1/bin/sh"; fi
}

has_program() { [ -n "$(find "$1/bin" "$1/sbin" "$1/usr/bin" "$1/usr/sbin" -maxdepth 1 -name "$2" 2>/dev/null)" ]; }

main
