# Redact secrets in what is printed or collected.
# needs: here
# sets: nothing
# shellcheck shell=sh disable=SC2154 # the scripts and their parts share their variables

# The name before the value of a secret, in a flag, a variable, YAML or JSON.
SECRET_NAMES='[Ss]ecret\|SECRET\|[Tt]oken\|TOKEN\|[Pp]assword\|PASSWORD\|[Pp]asswd\|PASSWD\|"auth\|auth_pass'
SECRET_NAMES="\\(\\($SECRET_NAMES\\)\"\\{0,1\\} *[:= ] *\\)"

# Redact PEM blocks, also in base64, values of fields with secrets, bootstrap tokens, JSON web tokens and passwords in
# URLs, from stdin to stdout.
redact() {
    awk -f "$here/lib/core/redact-pem.awk" |
        sed -e 's/LS0t[A-Za-z0-9+\/=]\{16,\}/[masked]/g' \
            -e 's/\([A-Za-z-]*-data"\{0,1\}: *"\{0,1\}\)[A-Za-z0-9+\/=]\{16,\}/\1[masked]/g' \
            -e "s/$SECRET_NAMES\"[^\"]\{1,\}\"/\1\"[masked]\"/g" \
            -e "s/${SECRET_NAMES}[^\" ,{}]\{6,\}/\1[masked]/g" \
            -e 's/\([Aa]uthorization"\{0,1\}: *"\{0,1\}[A-Za-z]\{1,\} \{1,\}\)[^ "]*/\1[masked]/g' \
            -e 's/[Bb]earer [A-Za-z0-9._~+\/=-]*/Bearer [masked]/g' \
            -e 's/\(^\|[^A-Za-z0-9]\)[a-z0-9]\{6\}\.[a-z0-9]\{16\}\($\|[^A-Za-z0-9]\)/\1[masked]\2/g' \
            -e 's/eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*/[masked]/g' \
            -e 's/\([a-z]*:\/\/[^:/ ]*:\)[^/ ]*@/\1[masked]@/g'
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
