# changes ("kind sha256 mode size source path") → a line for each group of files that one program can copy or move:
# "number link|copy|last directory source-directory name...". Files of at least `large` bytes may be hard links of the
# generation's. MANIFEST comes last. WORK/group.NUMBER has "kind path sha256" of each file, for the journal.
{
    directory = $6; sub(/\/[^\/]*$/, "", directory)
    source = $5; sub(/[^\/]*$/, "", source)
    how = "copy"
    if ($5 == "MANIFEST") how = "last"
    else if (large && $4 >= large) how = "link"
    key = how " " (directory == "" ? "/" : directory) " " (source == "" ? "./" : source)
    if (!(key in number)) { number[key] = ++n; group[n] = key }
    names[key] = names[key] " " substr($6, length(directory) + 2)
    print $1, $6, $2 >(work "/group." number[key])
}
END { for (i = 1; i <= n; i++) print i, group[i] names[group[i]] }
