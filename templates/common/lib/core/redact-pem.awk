# Replace PEM blocks, which may begin or end within a line.
{
    rest = $0
    if (inside) {
        if (!match(rest, /-----END [A-Z ]*-----/)) next
        rest = substr(rest, RSTART + RLENGTH)
        inside = 0
        if (rest == "") next
    }
    while (match(rest, /-----BEGIN [A-Z ]*-----/)) {
        before = substr(rest, 1, RSTART - 1)
        rest = substr(rest, RSTART + RLENGTH)
        print before "[masked: a PEM block]"
        if (!match(rest, /-----END [A-Z ]*-----/)) { inside = 1; next }
        rest = substr(rest, RSTART + RLENGTH)
    }
    if (rest != "" || $0 == "") print rest
}
