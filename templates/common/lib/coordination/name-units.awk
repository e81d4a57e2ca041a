# Distinguished names, in any form that openssl prints them: print the OU of each, or - for one without an OU.

match($0, /OU *= *[^,\/+]*/) {
    unit = substr($0, RSTART, RLENGTH)
    sub(/^OU *= */, "", unit)
    sub(/ *$/, "", unit)
    print unit
    next
}

/CN *=/ { print "-" }
