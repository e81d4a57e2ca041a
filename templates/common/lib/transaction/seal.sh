# Sealed bundles (bundler build --seal): the secrets are in secrets.sealed, encrypted for this host alone. The unseal
# code opens it; with --seal-to the code is in unseal.cms, for the host's own RSA key. bundler/bundle/seal.py is the
# other side. The code, and every key made of it, is only in files, and never in arguments or the environment.
# needs: dry_run generations here live packages_only unseal_key work
# sets: echo_off manifest secrets unsealed
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# Plain secrets are in /run/bundler-unsealed.PROCESS.START, in memory, until they are part of a generation. A
# generation of a sealed bundle has, like any other, the MANIFEST of the bundle without a seal. MANIFEST.sealed next
# to it says which sealed bundle it was, so that the same bundle needs no code a second time.

secrets=''

# Set `manifest` to the list of all files, and `secrets` to the directory that has the sealed ones with their MANIFEST.
# Without a code a dry run shows what can be known.
open_seal() {
    manifest=$here/MANIFEST
    remove_stale_secrets
    [ -n "$(header seal)" ] || return 0
    seal_key=$(header seal-key)
    print_seal_form "$here/MANIFEST" >"$work/seal-form"
    is_unsealed || find_kept_secrets || secrets=''
    [ -n "$secrets" ] || ! needs_secrets || unseal
    if [ -n "$secrets" ]; then list_all_files; else list_known_files; fi >"$work/MANIFEST.unsealed"
    manifest=$work/MANIFEST.unsealed
}

needs_secrets() { [ "$packages_only" = no ] && { [ "$dry_run" = no ] || has_unseal_option; }; }

has_unseal_option() { [ -n "$unseal_file$unseal_key" ]; }
is_unsealed() { [ -n "$secrets" ] && [ "$secrets" = "${unsealed:-}/files" ]; }

# print_seal_form MANIFEST: what makes a sealed bundle the same one, however it is carried.
print_seal_form() { awk '!/^#/ || $2 ~ /seal/' "$1"; }

# The header of this bundle, but for its seal, and the files of the bundle without a seal.
list_all_files() {
    awk '/^#/ && $2 !~ /seal/' "$here/MANIFEST"
    print_files "$secrets/MANIFEST"
}

# Without the code: a sealed file that has the tag of the installed generation's has its digest; others have `sealed`.
list_known_files() {
    awk '/^#/ && $2 !~ /seal/' "$here/MANIFEST"
    kept=$generations/$(current_generation)
    for each in "$kept/MANIFEST.sealed" "$kept/MANIFEST"; do [ -f "$each" ] || kept=''; done
    cat ${kept:+"$kept/MANIFEST.sealed"} /dev/null >"$work/kept-tags"
    cat ${kept:+"$kept/MANIFEST"} /dev/null >"$work/kept-files"
    awk -f "$here/lib/transaction/known-sealed.awk" "$work/kept-tags" "$work/kept-files" "$here/MANIFEST" |
        sort -k 4,4
}

# A generation that was this bundle, and whose secrets are as they were.
find_kept_secrets() {
    wanted_form=$(print_digest <"$work/seal-form")
    for number in $(list_numbers); do
        secrets=$generations/$number
        [ -f "$secrets/MANIFEST.sealed" ] && [ "$(print_digest <"$secrets/MANIFEST.sealed")" = "$wanted_form" ] &&
            is_same_build && [ -z "$(list_damaged_secrets)" ] && return 0
    done
    return 1
}

# Whether the MANIFEST in `secrets` names the files of this bundle and the sealed ones, and no other.
is_same_build() {
    awk -f "$here/lib/transaction/is-same-build.awk" "$here/MANIFEST" "$secrets/MANIFEST"
}

list_damaged_secrets() {
    awk '!/^#/ && $2 == "0600" { print $1, $4 }' "$secrets/MANIFEST" >"$work/secret-digests"
    list_damaged_files "$secrets" "$work/secret-digests"
}

# Decrypt into `unsealed`. A wrong code is refused before anything is changed. On a terminal it may be typed three
# times.
unseal() {
    command -v openssl >/dev/null 2>&1 || refuse_seal "this host has no openssl, which opens sealed bundles" \
        "install openssl; if the bundle has it among its packages: install.sh --packages-only"
    recipient=$(shorten "$(header sealed-to)")
    case ${recipient:+certificate}:${unseal_key:+key} in
        :key) refuse_seal "this bundle is sealed with a code, not to a certificate" \
            "run install.sh without --unseal-key" ;;
        certificate:) refuse_seal "this bundle is sealed to the certificate whose SHA-256 begins with $recipient" \
            "run install.sh --unseal-key FILE, with the private key of that certificate" ;;
    esac
    [ "$unseal_file" != - ] || [ ! -t 0 ] || unseal_file='' # typed, and not shown
    warn_of_readers "$unseal_file$unseal_key"
    make_unsealed_directory
    tries=1
    has_unseal_option || tries=3
    until read_code && is_code && is_code_of_bundle; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || refuse_seal "$fault" "$fix"
        warn "$fault: type it again"
    done
    fix="copy the tarball again, and unpack it into an empty directory"
    decrypt || refuse_seal "secrets.sealed cannot be decrypted, or is not what was sealed" "$fix"
    extract || refuse_seal "what is in secrets.sealed belongs to another MANIFEST" "$fix"
    rm -f "$unsealed/typed" "$unsealed/code" "$unsealed/password" "$unsealed/digest" "$unsealed/archive"
}

# refuse_seal WHAT FIX: before anything is changed.
refuse_seal() {
    printf '%s: seal: %s\n    fix: %s\nNothing was changed.\n' "${0##*/}" "$1" "$2" >&2
    exit 6
}

warn_of_readers() {
    [ -f "$1" ] || return 0
    case $(stat -c %a "$1") in *00) ;; *) warn "other users can read $1: chmod 600, and remove it afterwards" ;; esac
}

# In memory where the host is installed; a staged installation need not be root's.
make_unsealed_directory() {
    if is_staged; then
        unsealed=$work/unsealed
    else
        unsealed=$live/run/bundler-unsealed.$$.$(process_start $$)
        free=$(df -Pk "$live/run" | awk 'NR == 2 { print $4 }')
        needed=$(($(wc -c <"$here/secrets.sealed") / 256))
        [ "${free:-0}" -ge "$needed" ] ||
            refuse_seal "/run has ${free:-0} KiB free, and $needed are needed" "free some space there"
    fi
    (umask 077 && mkdir "$unsealed" "$unsealed/files") || die 1 "cannot create $unsealed"
}

# Write the code as it was given to `typed`. If there is none, `fault` and `fix` say why.
read_code() {
    fix="take the code of $NODE for the seal key $seal_key from the build's UNSEAL.tsv"
    if [ -n "$unseal_key" ]; then
        fault="$unseal_key does not open it"
        fix="give the private key (RSA, PEM) of the certificate whose SHA-256 begins with $recipient"
        openssl cms -decrypt -inform DER -in "$here/unseal.cms" -inkey "$unseal_key" -out "$unsealed/typed" 2>/dev/null
    elif [ -n "$unseal_file" ]; then
        fault="$unseal_file has no code for $NODE"
        print_code_line "$unseal_file" >"$unsealed/typed"
        [ -s "$unsealed/typed" ]
    else
        ask_code
    fi
}

# print_code_line FILE: its first line, or this node's in UNSEAL.tsv.
print_code_line() {
    awk -F '\t' -v node="$NODE" '/^#/ || NF == 0 || (NF > 1 && $1 != node) { next }
        { print (NF > 1 ? $2 : $1); exit }' "$1"
}

ask_code() {
    if ! (: </dev/tty) 2>/dev/null; then
        fault="this bundle is sealed, and there is no terminal to ask for the unseal code" tries=1
        fix="run install.sh --unseal-file FILE, or - for stdin; $fix"
        return 1
    fi
    fault="no code was typed"
    printf 'Unseal code of %s/%s, seal key %s (not shown): ' "$CLUSTER" "$NODE" "$seal_key" >/dev/tty
    echo_off=yes
    stty -echo </dev/tty
    head -n 1 </dev/tty >"$unsealed/typed"
    show_typing
    echo >/dev/tty
    [ -s "$unsealed/typed" ]
}

show_typing() {
    echo_off=no
    stty echo </dev/tty
}

# Whether it is a code: 28 characters, and 4 that are a digest of them, so that a typing mistake is found.
is_code() {
    tr -d ' \t\r\n-' <"$unsealed/typed" | tr abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ |
        tr OIL 011 >"$unsealed/code"
    echo >>"$unsealed/code"
    set_fault "an unseal code has eight groups of four letters and digits"
    awk 'length($0) != 32 || /[^0-9A-HJKMNP-TV-Z]/ { wrong = 1 } END { exit wrong }' "$unsealed/code" || return 1
    set_fault "the code has a typing mistake: its last group does not match the others"
    check=$(cut -c 1-28 "$unsealed/code" | print_digest | cut -c 1-4 | tr abcdef ABCDEF)
    [ "$check" = "$(cut -c 29-32 "$unsealed/code")" ]
}

is_code_of_bundle() {
    set_fault "this is not the code of this bundle, but of another node or another build"
    [ "$(keyed_digest key /dev/null | cut -c 1-16)" = "$seal_key" ]
}

# set_fault WHAT: why a code is wrong. A code from unseal.cms is not a person's mistake.
set_fault() { [ -n "$unseal_key" ] || fault=$1; }

# keyed_digest PURPOSE FILE: as _hash in bundler/bundle/seal.py.
keyed_digest() {
    { echo "bundler seal 1 $1" && cat "$unsealed/code" "$2"; } | openssl dgst -sha256 -r | cut -c 1-64
}

# openssl derives key and counter from the password as it did before 1.1.0 too, and says that there is a better way: the
# password is a digest already.
decrypt() {
    header seal >"$work/seal-tag"
    keyed_digest encryption "$work/seal-tag" >"$unsealed/password"
    openssl enc -d -aes-256-ctr -md sha256 -pass "file:$unsealed/password" \
        -in "$here/secrets.sealed" -out "$unsealed/archive" 2>/dev/null || return 1
    openssl dgst -sha256 -r <"$unsealed/archive" | cut -c 1-64 >"$unsealed/digest"
    [ "$(keyed_digest archive "$unsealed/digest")" = "$(cat "$work/seal-tag")" ]
}

extract() {
    secrets=$unsealed/files
    (umask 077 && tar -xf "$unsealed/archive" -C "$secrets") || return 1
    [ -z "$(find "$secrets" ! -type f ! -type d)" ] && is_same_build && [ -z "$(list_damaged_secrets)" ]
}

# keep_seal N: this generation has the secrets from now on. MANIFEST.sealed comes last: it says that no code is needed.
keep_seal() {
    [ -n "$secrets" ] && [ -f "$generations/$1/MANIFEST" ] || return 0
    [ "$(identity_of "$generations/$1/MANIFEST")" = "$(identity_of "$manifest")" ] || return 0
    sealed=$generations/$1/MANIFEST.sealed
    { cp "$work/seal-form" "$generations/sealed.part" && mv -f "$generations/sealed.part" "$sealed"; } ||
        die 1 "cannot write $sealed"
    secrets=$generations/$1
    [ -z "${unsealed:-}" ] || rm -rf "$unsealed"
    unsealed=''
}
