# Container images: loaded once, known by the digest of their configuration.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

loaded=0

# "file|reference|id" of the images that the runtime does not have under that reference and id.
missing_images() {
    for image in $IMAGES; do
        ref=${image#*|} ref=${ref%|*}
        [ "$(image_id "$ref")" = "${image##*|}" ] || printf '%s\n' "$image"
    done
}

# lib/runtime.sh says how, for the runtime of this node; nodes without images have none.
load_images() {
    [ -n "$IMAGES" ] || return 0
    await_runtime
    missing_images >"$work/images"
    rm -f "$store/image.tar" # of a run that was killed
    while IFS='|' read -r file ref id; do
        say "  loading $ref"
        load_image || die 1 "$file ($ref) could not be loaded: $answer"
        rm -f "$store/image.tar"
        note "loaded $ref $id"
        loaded=$((loaded + 1))
    done <"$work/images"
}

# flannel may have dockerd started anew at any moment, in the midst of a load or of the look after it.
load_image() {
    archive=$(image_archive "$file") || die 1 "$ref is not in the runtime, and this bundle leaves it out: run install.sh of the whole bundle"
    for _ in 1 2 3; do
        await_runtime
        answer=$(load_archive "$archive") && answer="the runtime has another image of that name than $id"
        [ "$(image_id "$ref")" != "$id" ] || return 0
    done
    return 1
}

await_runtime() {
    tried=0
    until reason=$(is_settled "$runtime_unit" && ready_runtime); do
        [ "$tried" -lt "$wait_limit" ] || { show_journal "$runtime_unit"; die 1 "$runtime_unit is not ready after $wait_limit s: $reason"; }
        [ $((tried % 15)) -ne 10 ] || say "  waiting for $runtime_unit ($tried s): $reason"
        sleep 1
        tried=$((tried + 1))
    done
}
