# "NAMESPACE NAME TOKEN" → "KEY NAMESPACE NAME", a line each: the id of the key that signed the token, from its header,
# or - if it has none (before Kubernetes 1.16). A Secret whose token is not made yet is left out. Needs base64.awk.
NF == 3 {
    header = $3
    sub(/\..*/, "", header)
    header = decode(header)
    id = "-"
    if (match(header, /"kid":"[^"]+"/)) id = substr(header, RSTART + 7, RLENGTH - 8)
    print id, $1, $2
}
