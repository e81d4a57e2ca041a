# Container images: load each one once. An image is known by the digest of its configuration. Its files stay in
# /opt/k8s/images, so that an image that the runtime removed can be loaded again.
# needs: here prefix runtime_unit wait_limit work
# sets: IMAGES loaded
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

loaded=0

# Set IMAGES: "directory|reference|id" of each image of the bundle; nodes without pods have none.
read_images() {
    IMAGES=''
    [ ! -f "$here/lib/images.tsv" ] ||
        IMAGES=$(awk -F '\t' '!/^#/ { printf "%s|%s|%s ", $1, $2, $3 }' "$here/lib/images.tsv")
}

# "directory|reference|id" of the images that the runtime does not have under that reference and id.
list_missing_images() {
    for image in $IMAGES; do
        ref=${image#*|} ref=${ref%|*}
        [ "$(image_id "$ref")" = "${image##*|}" ] || printf '%s\n' "$image"
    done
}

# With the functions of lib/runtime.sh; nodes without images have no such file.
load_images() {
    [ -n "$IMAGES" ] || return 0
    wait_for_runtime
    list_missing_images >"$work/images"
    loaded_name=''
    while IFS='|' read -r name ref id; do
        # an archive has all names of its image
        [ -z "$loaded_name" ] || [ "$name" != "$loaded_name" ] || ! has_image "$ref" "$id" || continue
        say "  loading $ref"
        load_image || die 1 "$ref could not be loaded from $prefix/opt/k8s/images/$name: $answer"
        note "loaded $ref $id"
        loaded=$((loaded + 1)) loaded_name=$name
    done <"$work/images"
}

# flannel may restart dockerd at any moment, during a load or the check after it.
load_image() {
    answer=$(list_lost_blobs "$name")
    [ -z "$answer" ] || return 1
    for _ in 1 2 3; do
        wait_for_runtime
        answer=$(write_archive "$name" | load_archive "$ref") &&
            answer="the runtime has another image with this name than $id"
        [ "$(image_id "$ref")" != "$id" ] || return 0
    done
    return 1
}

list_lost_blobs() {
    while read -r digest; do
        [ -f "$prefix/opt/k8s/images/blobs/sha256/$digest" ] || {
            echo "$digest is missing: run install.sh of the bundle"
            return 0
        }
    done <"$prefix/opt/k8s/images/$1/blobs"
}

# write_archive DIRECTORY: the image as one archive on stdout, with its blobs from the shared directory. tar follows
# symbolic links, so that no copy needs disk space.
write_archive() {
    rm -rf "$work/archive"
    mkdir -p "$work/archive/blobs/sha256" || return 1
    for part in oci-layout index.json manifest.json; do
        ln -s "$prefix/opt/k8s/images/$1/$part" "$work/archive/$part" || return 1
    done
    while read -r digest; do
        ln -s "$prefix/opt/k8s/images/blobs/sha256/$digest" "$work/archive/blobs/sha256/$digest" || return 1
    done <"$prefix/opt/k8s/images/$1/blobs"
    tar -chf - -C "$work/archive" oci-layout index.json manifest.json blobs
}

# A runtime that answers may be unable to run anything: a library of runc is missing, or AppArmor's parser. So a
# worker is ready when one container of the pause image has run, once since the runtime's last start. Before a change
# the bundle's pause image may not be here yet: then the runtime has to answer only.
ready_containers() {
    ready_runtime || return 1
    runtime_start=$(systemctl show -p ActiveEnterTimestampMonotonic "$runtime_unit" 2>/dev/null)
    [ ! -f "$work/container-ran" ] || [ "$(cat "$work/container-ran")" != "$runtime_start" ] || return 0
    for image in $IMAGES; do
        ref=${image#*|} ref=${ref%|*}
        if [ "$ref" != "$PAUSE_IMAGE" ] || ! has_image "$ref" "${image##*|}"; then continue; fi
        reason=$(try_container "${image%%|*}" "$ref") || {
            echo "it runs no container: $reason"
            return 1
        }
        printf '%s\n' "$runtime_start" >"$work/container-ran"
    done
}

has_image() { [ "$(image_id "$1")" = "$2" ]; }

wait_for_runtime() {
    tried=0
    until reason=$(is_settled "$runtime_unit" && ready_runtime); do
        [ "$tried" -lt "$wait_limit" ] || {
            show_journal "$runtime_unit"
            die 1 "$runtime_unit is not ready after $wait_limit s: $reason"
        }
        [ $((tried % 15)) -ne 10 ] || say "  waiting for $runtime_unit ($tried s): $reason"
        sleep 1
        tried=$((tried + 1))
    done
}
