#!/bin/sh
# Load the images of the bundle that the container runtime has lost: the kubelet takes unused ones
# away when a disk is nearly full, and nothing can be pulled here. What is there is not loaded again.
# The timer kube-images calls it.
# shellcheck disable=SC2034,SC2154 # the parts in lib/ share the variables
set -u
LC_ALL=C
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${DESTDIR:-}/opt/k8s/bin
export LC_ALL PATH
here=${DESTDIR:-}/opt/k8s/bundle
for part in core/common transaction/units transaction/images runtime; do
    # shellcheck disable=SC1090 # the files of the bundle
    . "$here/lib/$part.sh" || exit 2
done

main() {
    make_work_dir
    load_node
    read_images
    wait_limit=60
    if is_locked; then say "install.sh or uninstall.sh is running (process $(lock_owner)): left to it"; return; fi
    load_images
    say "$(printf '%s\n' "$IMAGES" | wc -w | tr -d ' ') images, $loaded of them loaded again"
}

main "$@"
