# A file of YAML as bundler writes it, two spaces a level: print "set VALUE" for a field, or "unset". The items of a
# list are joined by commas.
# Variables: path (of keys, joined by dots).

BEGIN { depth = split(path, keys, ".") }

/^ *#/ || /^ *$/ { next }

is_list && match($0, /^ *- /) == 1 && RLENGTH - 2 >= list_indent {
    item = substr($0, RLENGTH + 1)
    list = list (list == "" ? "" : ",") unquote(item)
    next
}
is_list { exit }

{
    match($0, /^ */)
    level = RLENGTH / 2
    text = substr($0, RLENGTH + 1)
    key = text
    sub(/:.*/, "", key)
    if (level < at) at = level # the level of the path that is reached
    if (level != at || unquote(key) != keys[at + 1]) next
    value = text
    sub(/^[^:]*: */, "", value)
    if (++at < depth) next
    if (value != "") {
        print (value == "null" ? "unset" : "set " unquote(value))
        is_done = 1
        exit
    }
    is_list = 1
    list_indent = level * 2
}

END { if (!is_done) print (list == "" ? "unset" : "set " list) }

function unquote(word) {
    if (word ~ /^".*"$/ || word ~ /^'.*'$/) return substr(word, 2, length(word) - 2)
    return word
}
