# Redact secrets in what is printed or collected.
# needs: here
# sets: nothing
# shellcheck shell=sh disable=SC2154 # the scripts and their parts share their variables

# Redact PEM blocks and what is secret by its name or its shape, from stdin to stdout.
redact() {
    LC_ALL=C awk -f "$here/lib/core/secret-patterns.awk" -f "$here/lib/core/secret-shapes.awk" \
        -f "$here/lib/core/redact.awk"
}

# list_secret_words FILE: words of a secret file that may be secrets: lines of keys, in base64 too, and tokens. Names
# have no digits, or are short; paths have dots or dashes.
list_secret_words() {
    tr -c 'A-Za-z0-9+/=._\n-' '\n' <"$1" | awk '
        !/-----/ && ((length($0) >= 16 && /[0-9]/) || (length($0) >= 40 && !/[._-]/))' | while read -r word; do
        printf '%s\n' "$word"
        case $word in LS0t*) printf '%s' "$word" | base64 -d 2>/dev/null | grep -v -e '-----' ;; esac
    done
}

# redact_words FILE WORDS: replace all words of the file WORDS.
redact_words() {
    grep -qF -f "$2" "$1" || return 0
    sed 's/[.]/\\./g; s/.*/s|&|[masked]|g/' "$2" >"$2.sed"
    sed -f "$2.sed" "$1" >"$1.masked" && mv -f "$1.masked" "$1"
}
