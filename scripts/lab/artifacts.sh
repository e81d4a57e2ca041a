#!/bin/sh
# The lab's artifacts: what bundler would download, under <lab cache>/mirror/<host>/<path>.
#
#   artifacts.sh            make or fetch what is missing; a whole one is kept
#
# BUNDLER_LAB_CACHE   where to (default ~/.cache/bundler-lab)
# BUNDLER_LAB_SOURCE  upstream | debian (default: upstream if it answers within 5 s, else debian)
#
# Leaves mirror/, images/{pause,nginx}.tar, pins.yaml (the digests of what was just made or
# fetched) and source.txt (which of the two it was).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
kubernetes=1.20.2 etcd=3.4.23 docker=20.10.24 cni=1.1.1 containerd=1.6.20 runc=1.1.5
pause_ref=registry.k8s.io/pause:3.2 nginx_ref=nginx:1.22

# component, URL: one line each
artifacts="kubernetes-server https://dl.k8s.io/v$kubernetes/kubernetes-server-linux-amd64.tar.gz
etcd https://github.com/etcd-io/etcd/releases/download/v$etcd/etcd-v$etcd-linux-amd64.tar.gz
docker https://download.docker.com/linux/static/stable/x86_64/docker-$docker.tgz
containerd https://github.com/containerd/containerd/releases/download/v$containerd/containerd-$containerd-linux-amd64.tar.gz
runc https://github.com/opencontainers/runc/releases/download/v$runc/runc.amd64
cni-plugins https://github.com/containernetworking/plugins/releases/download/v$cni/cni-plugins-linux-amd64-v$cni.tgz"

main() {
    mkdir -p "$LAB_CACHE/images" "$LAB_CACHE/build"
    if ! is_complete; then
        source=$(choose_source)
        "make_from_$source"
        write_pins
        printf '%s\n' "$source" >"$LAB_CACHE/source.txt"
        recipe >"$LAB_CACHE/.complete.new" && mv "$LAB_CACHE/.complete.new" "$LAB_CACHE/.complete"
    fi
    case $(cat "$LAB_CACHE/source.txt") in
        upstream) say "artifacts: upstream's own files, in $LAB_CACHE" ;;
        *) say "artifacts: made from Debian's packages, because upstream cannot be reached; in $LAB_CACHE" ;;
    esac
}

# Complete: an earlier run of these very scripts ended well, with the same wrapper of runc.
is_complete() { recipe | cmp -s - "$LAB_CACHE/.complete"; }
recipe() { cat "$here/artifacts.sh" "$here/runc-wrapper" && kubernetes_recipe; }
kubernetes_recipe() { cat "$here/kubernetes-source.sh" "$here/build-kubernetes.sh"; }

choose_source() {
    if [ -n "${BUNDLER_LAB_SOURCE:-}" ]; then
        printf '%s\n' "$BUNDLER_LAB_SOURCE"
    elif curl -fsI --max-time 5 -o /dev/null https://dl.k8s.io/v$kubernetes/kubernetes-server-linux-amd64.tar.gz 2>/dev/null; then
        echo upstream
    else
        echo debian
    fi
}

make_from_debian() {
    if ! kubernetes_recipe | cmp -s - "$LAB_CACHE/build/kubernetes-$kubernetes/recipe"; then
        say "building Kubernetes $kubernetes from Debian's source package (about 7 minutes on 2 cores)"
        "$here/builder.sh" run "$LAB_CACHE/build" sh /scripts/build-kubernetes.sh $kubernetes >"$LAB_CACHE/build.log" 2>&1 ||
            {
                tail -20 "$LAB_CACHE/build.log" >&2
                fail "the build failed (log: $LAB_CACHE/build.log)"
            }
        kubernetes_recipe >"$LAB_CACHE/build/kubernetes-$kubernetes/recipe"
    fi
    say "repacking Debian's programs in upstream's layout"
    wrap=no
    "$here/builder.sh" image
    has_sys_resource bundler-lab-builder:1 || wrap=yes
    "$here/builder.sh" run "$LAB_CACHE" sh /scripts/pack-debian.sh $kubernetes $etcd $docker $cni $containerd $runc $wrap
    say "importing the images $pause_ref and $nginx_ref"
    docker import --change 'ENTRYPOINT ["/pause"]' "$LAB_CACHE/rootfs/pause.tar" $pause_ref >/dev/null
    docker import --change 'CMD ["nginx", "-g", "daemon off;"]' --change 'EXPOSE 80' "$LAB_CACHE/rootfs/nginx.tar" $nginx_ref >/dev/null
    save_images
}

make_from_upstream() {
    printf '%s\n' "$artifacts" | while read -r component url; do
        target=$(mirror_path "$url")
        [ -f "$target" ] && continue
        say "fetching $component"
        mkdir -p "$(dirname "$target")"
        curl -fL --retry 5 -C - -o "$target.part" "$url"
        mv "$target.part" "$target"
    done
    mkdir -p "$LAB_CACHE/host"
    docker pull -q $pause_ref >/dev/null
    docker pull -q $nginx_ref >/dev/null
    save_images
}

save_images() {
    docker save -o "$LAB_CACHE/images/pause.tar.new" $pause_ref && mv "$LAB_CACHE/images/pause.tar.new" "$LAB_CACHE/images/pause.tar"
    docker save -o "$LAB_CACHE/images/nginx.tar.new" $nginx_ref && mv "$LAB_CACHE/images/nginx.tar.new" "$LAB_CACHE/images/nginx.tar"
}

write_pins() {
    {
        echo "# digests of the lab's own artifacts, written by scripts/lab/artifacts.sh"
        echo "artifacts:"
        printf '%s\n' "$artifacts" | while read -r component url; do
            printf '  %s:\n    url: %s\n    sha256: %s\n' "$component" "$url" \
                "$(sha256sum "$(mirror_path "$url")" | cut -d' ' -f1)"
            [ "$source" != debian ] || list_made_from "$component"
        done
    } >"$LAB_CACHE/pins.yaml.new"
    mv "$LAB_CACHE/pins.yaml.new" "$LAB_CACHE/pins.yaml"
}

# `bundler audit` compares Debian's builds with Debian's advisories.
list_made_from() {
    purls=$(sed -n "s/^$1 //p" "$LAB_CACHE/build/made-from.txt")
    # shellcheck disable=SC2086 # one word a package
    [ -z "$purls" ] || { echo "    made_from:" && printf '      - "%s"\n' $purls; }
}

mirror_path() { printf '%s/mirror/%s\n' "$LAB_CACHE" "${1#https://}"; }

main
