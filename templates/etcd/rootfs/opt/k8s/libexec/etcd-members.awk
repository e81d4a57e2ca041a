# The answer of etcd to /members, split into a line for each "{": print "ID NAME PEER-URLS CLIENT-URLS" of each
# member, with - where a value is missing or empty.

/"id":/ { print value("id"), value("name"), value("peerURLs"), value("clientURLs") }

function value(key, text) {
    if (!match($0, "\"" key "\":(\\[[^]]*\\]|\"[^\"]*\"|[0-9]+)")) return "-"
    text = substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
    gsub(/[]["]/, "", text)
    return text == "" ? "-" : text
}
