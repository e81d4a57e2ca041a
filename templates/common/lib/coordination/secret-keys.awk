# Key-value pairs of etcdctl get -w json, one a line and cut after the start of the value →
# "PROVIDER:KEY NAMESPACE/NAME", a line each; "plain" for a value that is not encrypted. Needs base64.awk.
/"key":"/ {
    key = $0
    sub(/.*"key":"/, "", key)
    sub(/".*/, "", key)
    key = decode(key)
    if (sub(/^\/registry\/secrets\//, "", key) == 0 || key !~ /^[^\/ ]+\/[^\/ ]+$/) { failed = 1; next }
    value = ""
    if (match($0, /"value":"/)) value = decode(substr($0, RSTART + RLENGTH))
    if (value == "" && !match($0, /"value":"/)) { failed = 1; next }
    # k8s:enc:aescbc:v1:key1:
    count = split(value, part, ":")
    print (part[1] ":" part[2] == "k8s:enc" && count >= 5 ? part[3] ":" part[5] : "plain"), key
}
END { exit failed }
