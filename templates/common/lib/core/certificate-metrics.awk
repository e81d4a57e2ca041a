# Print the ends of certificates as Prometheus metrics. Input: end, start, path and subject, tab-separated, by end.
# Of certificates with the same subject in one file, the first to end is reported.

function quoted(text,    i, c, out) {
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        out = out (c == "\\" || c == "\"" ? "\\" : "") c
    }
    return out
}

BEGIN {
    FS = "\t"
    print "# HELP bundler_certificate_expiry_seconds When a certificate of this host ends, in seconds since 1970."
    print "# TYPE bundler_certificate_expiry_seconds gauge"
}

!seen[$3, $4]++ {
    printf "bundler_certificate_expiry_seconds{path=\"%s\",subject=\"%s\"} %s\n", quoted($3), quoted($4), $1
}
