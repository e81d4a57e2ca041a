# Key-value pairs of etcdctl get -w json, one a line and cut after the start of the value →
# "PROVIDER:KEY NAMESPACE/NAME", a line each; "plain" for a value that is not encrypted. With another `resource` than
# secrets it is the third word. Needs base64.awk.
BEGIN { prefix = "/registry/" resource "/" }
/"key":"/ {
    key = $0
    sub(/.*"key":"/, "", key)
    sub(/".*/, "", key)
    key = decode(key)
    if (index(key, prefix) != 1) { failed = 1; next }
    key = substr(key, length(prefix) + 1)
    if (key !~ /^[^\/ ]+\/[^\/ ]+$/) { failed = 1; next }
    value = ""
    if (match($0, /"value":"/)) value = decode(substr($0, RSTART + RLENGTH))
    if (value == "" && !match($0, /"value":"/)) { failed = 1; next }
    # k8s:enc:aescbc:v1:key1:
    count = split(value, part, ":")
    id = part[1] ":" part[2] == "k8s:enc" && count >= 5 ? part[3] ":" part[5] : "plain"
    print id, (resource == "secrets" ? key : key " " resource)
}
END { exit failed }
