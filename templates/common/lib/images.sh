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

image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

# An archive holds its image whole or docker refuses it: so a load that was cut short is repeated.
load_images() {
    [ -n "$IMAGES" ] || return 0
    await_runtime
    missing_images >"$work/images"
    while IFS='|' read -r file ref id; do
        say "  loading $ref"
        answer=$(docker load -q -i "$here/$file" 2>&1) || die 1 "docker load of $file ($ref) failed: $answer"
        [ "$(image_id "$ref")" = "$id" ] || die 1 "$ref is not the image $id after $file was loaded"
        note "loaded $ref $id"
        loaded=$((loaded + 1))
    done <"$work/images"
}

await_runtime() {
    tried=0
    until reason=$(is_settled docker.service && ready_docker); do
        [ "$tried" -lt "$wait_limit" ] || { show_journal docker.service; die 1 "docker is not ready after $wait_limit s: $reason"; }
        [ $((tried % 15)) -ne 10 ] || say "  waiting for docker ($tried s): $reason"
        sleep 1
        tried=$((tried + 1))
    done
}
