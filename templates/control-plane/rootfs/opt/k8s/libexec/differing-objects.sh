#!/bin/sh
# Print the objects that differ, for kubectl diff (KUBECTL_EXTERNAL_DIFF): differing-objects.sh LIVE PLANNED, two
# directories with a file for each object, API.KIND.NAMESPACE.NAME. What the API server itself counts or notes is no
# difference. Exit code: 0 none, 1 some.
set -u
code=0
for planned in "$2"/*; do
    [ -f "$planned" ] || continue
    name=${planned##*/} found=changed
    for file in "$1/$name" "$planned"; do
        sed -e '/^  managedFields:/,/^  [a-z]/{/^  [-a-z ]*managedFields:/d;/^  - /d;/^    /d;}' \
            -e '/^  generation: /d' -e '/^  resourceVersion: /d' "$file" 2>/dev/null | cksum
    done | { read -r a && read -r b && [ "$a" = "$b" ]; } && continue
    [ -s "$1/$name" ] || found=missing
    printf '%s %s\n' "$name" "$found"
    code=1
done
exit "$code"
