# installed ("path sha256 mode owner"), entries ("sha256 mode size source path") → "new|changed" and the entry, for
# each file that is missing on this host or differs. `owner` is UID:GID of new files.
FILENAME == ARGV[1] { sha[$1] = $2; state[$1] = $3 " " $4; next }
{
    kind = ""
    if (!($5 in sha)) kind = "new"
    else if (sha[$5] != $1 || state[$5] != ($2 + 0) " " owner) kind = "changed"
    if (kind != "") print kind, $1, $2, $3, $4, $5
}
