# Which files set kernel settings to other values than the bundle, as systemd-sysctl applies them at boot.
# Input: "name path", in the order of reading; the path %settings or %limits stands for the bundle's own file.
# Variables: must and wanted (KEY=VALUE or KEY>=VALUE words, + for a space in a value), root. Output: level, what, and
# the fix, with tabs between.

BEGIN {
    same["net.ipv4.conf.all.forwarding"] = "net.ipv4.ip_forward" # one variable of the kernel
    read_needs(must, "must")
    read_needs(wanted, "advice")
}

$2 == "%settings" { take_own(0); next }
$2 == "%limits" { take_own(1); next }
{ read_file($2) }

END {
    for (i = 1; i <= count; i++) {
        key = keys[i]
        if (!(key in value) || is_enough(key, value[key])) continue
        printf "%s\t%s sets %s = %s at the next boot, and the node needs %s\t", level[key],
            substr(from[key], length(root) + 1), said[key], value[key], need[key]
        printf "set it to %s there, or remove the line\n", need[key]
    }
}

function read_needs(list, how,   n, i, word, at, key) {
    n = split(list, word, " ")
    for (i = 1; i <= n; i++) {
        at = match(word[i], /[>=]/)
        key = substr(word[i], 1, at - 1)
        least[key] = substr(word[i], at, 1) == ">"
        need[key] = substr(word[i], at + 1 + least[key])
        gsub(/[+]/, " ", need[key])
        level[key] = how
        keys[++count] = key
    }
}

function take_own(limits,   i) {
    for (i = 1; i <= count; i++) if (least[keys[i]] == limits) delete value[keys[i]]
}

function is_enough(key, found) { return least[key] ? found + 0 >= need[key] + 0 : found == need[key] }

function read_file(path,   line, at, key) {
    while ((getline line <path) > 0) {
        sub(/^[ \t]+/, "", line)
        at = index(line, "=")
        if (line ~ /^[#;]/ || !at) continue
        key = substr(line, 1, at - 1)
        line = substr(line, at + 1)
        gsub(/^[ \t-]+|[ \t]+$/, "", key)
        gsub(/^[ \t]+|[ \t\r]+$/, "", line)
        gsub(/[ \t]+/, " ", line)
        take(make_dotted(key), line, path)
    }
    close(path)
}

# The first of . and / separates: net/ipv4/conf/eth0.1/forwarding is one name with a dot in it.
function make_dotted(key) {
    if (!match(key, /[.\/]/) || substr(key, RSTART, 1) == ".") return key
    gsub(/\./, "\001", key)
    gsub(/\//, ".", key)
    gsub(/\001/, "/", key)
    return key
}

# A pattern never wins over the same name without one, which the bundle has.
function take(key, found, path,   other) {
    if (key ~ /[*?\[]/) {
        for (other in same) if (other ~ make_regex(key)) set(same[other], found, path, key)
    } else if (key in same) set(same[key], found, path, key)
    else set(key, found, path, key)
}

function make_regex(glob) {
    gsub(/\./, "[.]", glob)
    gsub(/\?/, "[^.]", glob)
    gsub(/\*/, "[^.]*", glob)
    return "^" glob "$"
}

function set(key, found, path, as) {
    if (!(key in need)) return
    value[key] = found
    from[key] = path
    said[key] = as
}
