# Drop-ins that change what a unit runs, as whom or where, or its environment.
# Input: "unit name path", with tabs; of a unit's drop-ins with one name the first counts. Variable: root.
# Output: level, what, and the fix, with tabs between.

BEGIN { FS = "\t" }

seen[$1 "/" $2]++ { next }

{
    settings = read_settings($3)
    if (settings == "") next
    shown = substr($3, length(root) + 1)
    own = "/etc/systemd/system/" $1 ".d"
    fix = shown ~ /^\/etc\// ? "rm " shown : "mkdir -p " own "; ln -s /dev/null " own "/" $2
    printf "%s\t%s changes %s of %s\t%s; systemctl daemon-reload\n",
        (settings ~ /(^|, )(ExecStart|Type|User|Group|DynamicUser|Root[A-Za-z]+)(,|$)/ ? "must" : "advice"),
        shown, settings, $1, fix
}

function read_settings(path,   line, key, list, had) {
    while ((getline line <path) > 0) {
        key = line
        sub(/[ \t]*=.*/, "", key)
        sub(/^[ \t]+/, "", key)
        if (key !~ /^(Exec[A-Za-z]+|Type|User|Group|DynamicUser|Root[A-Za-z]+)$/ &&
            key !~ /^(Environment|EnvironmentFile|UnsetEnvironment)$/) continue
        if (line ~ /=/ && !(key in had)) list = list (list == "" ? "" : ", ") key
        had[key] = 1
    }
    close(path)
    return list
}
