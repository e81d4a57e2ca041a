# installed ("path sha256 mode uid:gid user:group"), entries ("sha256 mode size source path") → "new|changed" and the
# entry, for each file that is missing on this host or differs. `owner` is UID:GID of new files; `table`
# (site-files.tsv) names other owners, by name or number.
BEGIN {
    while ((getline line < table) > 0) {
        split(line, part, "\t")
        wanted[part[1]] = part[2]
    }
}
FILENAME == ARGV[1] { sha[$1] = $2; mode[$1] = $3; ids[$1] = $4; names[$1] = $5; next }
{
    kind = ""
    if (!($5 in sha)) kind = "new"
    else if (sha[$5] != $1 || mode[$5] != $2 + 0 || !is_owner($5)) kind = "changed"
    if (kind != "") print kind, $1, $2, $3, $4, $5
}

function is_owner(path,    want, id, name) {
    split((path in wanted) ? wanted[path] : owner, want, ":")
    split(ids[path], id, ":")
    split(names[path], name, ":")
    return (want[1] == id[1] || want[1] == name[1]) && (want[2] == id[2] || want[2] == name[2])
}
