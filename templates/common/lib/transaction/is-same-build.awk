# MANIFEST of a sealed bundle, and the one in its seal → 0 if both name the same files: those that are not secret with
# the same lines, and the secret ones (0600) by their paths.
FILENAME == ARGV[1] {
    if ($2 == "from-seal") wanted[$3] = 1
    else if (!/^#/ && $2 != "0600") wanted[$0] = 1
    next
}
/^#/ { next }
{
    name = $2 == "0600" ? $4 : $0
    if (!(name in wanted)) differs = 1
    delete wanted[name]
}
END {
    for (name in wanted) differs = 1
    exit differs
}
