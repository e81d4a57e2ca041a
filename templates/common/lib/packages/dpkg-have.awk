# "package|version|status|architecture|provides" → "name version" of what is installed or provided for `arch`.
$4 != arch && $4 != "all" { next }
$3 != "installed" && $3 !~ /^triggers-/ { next }
{
    print $1, $2
    n = split($5, part, /, */)
    for (i = 1; i <= n; i++) { sub(/ *\(= */, " ", part[i]); sub(/\).*/, "", part[i]); print part[i] }
}
