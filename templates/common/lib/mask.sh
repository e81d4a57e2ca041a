# Secrets out of what is shown or handed on.
# shellcheck shell=sh

# PEM blocks, values of fields that hold secrets, bootstrap tokens, JSON web tokens, passwords in URLs.
mask() {
    awk '/-----BEGIN [A-Z ]*-----/ { print "[masked: a PEM block]"; inside = 1 }
        !inside { print }
        /-----END / { inside = 0 }' |
        sed -e 's/\([A-Za-z-]*-data"\{0,1\}: *"\{0,1\}\)[A-Za-z0-9+\/=]\{16,\}/\1[masked]/g' \
            -e 's/\(\(secret\|token\|password\|passwd\|token-secret\|auth_pass\)"\{0,1\} *[:= ] *"\{0,1\}\)[^" ,{}]\{6,\}/\1[masked]/g' \
            -e 's/[Bb]earer [A-Za-z0-9._~+\/=-]*/Bearer [masked]/g' \
            -e 's/\(^\|[^A-Za-z0-9]\)[a-z0-9]\{6\}\.[a-z0-9]\{16\}\($\|[^A-Za-z0-9]\)/\1[masked]\2/g' \
            -e 's/eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*/[masked]/g' \
            -e 's/\([a-z]*:\/\/[^:/ ]*:\)[^@/ ]*@/\1[masked]@/g'
}
