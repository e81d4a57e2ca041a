# Lines of modprobe.d that keep a module from being loaded at boot. Input: "name path", with a tab between.
# Variables: modules (words), root. Output: level, what, and the fix, with tabs between.

BEGIN {
    FS = "\t"
    n = split(modules, list, " ")
    for (i = 1; i <= n; i++) wanted[list[i]] = 1
}

{
    shown = substr($2, length(root) + 1)
    while ((getline line <$2) > 0) {
        if (split(line, word, /[ \t]+/) < 2) continue
        gsub(/-/, "_", word[2])
        if (!(word[2] in wanted)) continue
        if (word[1] == "blacklist" || (word[1] == "install" && word[3] ~ /\/(true|false)$/))
            printf "must\t%s keeps the module %s from being loaded at boot (%s)\tremove that line from %s\n",
                shown, word[2], word[1], shown
    }
    close($2)
}
