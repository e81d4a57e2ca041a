#!/bin/sh
# Load images of the bundle that the container runtime no longer has: the kubelet removes unused images when
# a disk is nearly full, and no image can be pulled on this host. Existing images are not loaded again.
# The timer kube-images runs it.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=${DESTDIR:-}/opt/k8s/bundle
for part in core/environment core/common transaction/units transaction/images runtime; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

main() {
    make_work_dir
    load_node
    read_images
    wait_limit=60
    if is_locked; then
        say "install.sh or uninstall.sh is running (process $(lock_owner)): nothing to do"
        return 0
    fi
    load_images
    say "$(printf '%s\n' "$IMAGES" | wc -w | tr -d ' ') images, $loaded of them loaded again"
}

main "$@"
