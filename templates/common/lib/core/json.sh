# JSON strings and arrays from text.
# needs: nothing
# sets: nothing
# shellcheck shell=sh

json_string() {
    printf '"%s"' "$(printf '%s' "$1" | LC_ALL=C tr -cd '\040-\176' | sed 's/[\\"]/\\&/g')"
}

# Lines on stdin → an array of strings.
json_lines() {
    LC_ALL=C tr -cd '\012\040-\176' | awk '
        { gsub(/[\\"]/, "\\\\&"); printf "%s\"%s\"", (NR == 1 ? "[" : ","), $0 }
        END { print (NR == 0 ? "[]" : "]") }' | tr -d '\n'
}
