# HTTPS requests with openssl (1.0.2 or later), so that hosts need no curl.
# needs: nothing
# sets: nothing
# shellcheck shell=sh

# https_get HOST PORT PATH CA [CERT KEY]
# Print the status on the first line and the body below it. The server's certificate must be issued by a CA in the
# file CA, which need not be a root, and be valid for HOST. Status 000 means that there was no answer; the second line
# then says why. HTTPS_TIMEOUT limits the request in seconds (default 10).
https_get() { https_exchange '' '' "$@"; }

# https_get_with HEADERS HOST PORT PATH CA [CERT KEY]: the same with more headers, lines that end with \r\n.
https_get_with() { https_exchange '' "$@"; }

# https_put FILE HEADERS HOST PORT PATH CA CERT KEY: the same for a PUT of a file in YAML.
https_put() { https_exchange "$@"; }

https_exchange() (
    https_file=$1 https_headers=$2 https_host=$3 https_port=$4 https_path=$5
    shift 5
    https_dir=$(mktemp -d) || exit 1
    trap 'rm -rf "$https_dir"' EXIT
    {
        print_https_request "$https_host:$https_port" "$https_path" "$https_file" "$https_headers" |
            https_connect "$https_host" "$https_port" "$@" >"$https_dir/answer"
    } 2>"$https_dir/errors"
    https_code=$?
    LC_ALL=C awk 'NR == 1 && $1 !~ /^HTTP\// { exit 1 }
        NR == 1 { print $2; next }
        body { print; next }
        /^\r?$/ { body = 1 }
        END { if (NR == 0) exit 1 }' "$https_dir/answer" ||
        printf '000\n%s\n' "$(https_reason "$https_dir/errors" "$https_code")"
)

# https_save FILE HEADERS HOST PORT PATH CA [CERT KEY]: a GET whose body, of any bytes, goes into FILE. Print the status
# and below it the headers of the answer; 000 and the reason as above, and 507 if FILE cannot be written.
https_save() (
    https_file=$1 https_headers=$2 https_host=$3 https_port=$4 https_path=$5
    shift 5
    https_dir=$(mktemp -d) || exit 1
    trap 'rm -rf "$https_dir"' EXIT
    {
        print_https_request "$https_host:$https_port" "$https_path" '' "$https_headers" | {
            https_connect "$https_host" "$https_port" "$@"
            echo $? >"$https_dir/code"
        } | https_split "$https_file" >"$https_dir/head"
    } 2>"$https_dir/errors"
    case $? in
        0) cat "$https_dir/head" ;;
        2) echo 507 ;;
        *) printf '000\n%s\n' "$(https_reason "$https_dir/errors" "$(cat "$https_dir/code")")" ;;
    esac
)

# https_connect HOST PORT CA [CERT KEY]: send stdin, print what comes back.
https_connect() {
    https_peer=$1 https_at=$1:$2 https_authority=$3
    shift 3
    [ $# -eq 0 ] || set -- -cert "$1" -key "$2"
    case $https_peer in
        *[!0-9.]*) set -- "$@" -verify_hostname "$https_peer" -servername "$https_peer" ;;
        *) set -- "$@" -verify_ip "$https_peer" ;;
    esac
    # openssl 1.0.2 accepts a wrong certificate unless -verify is given in addition to -verify_return_error.
    timeout "${HTTPS_TIMEOUT:-10}" openssl s_client -quiet -connect "$https_at" \
        -CAfile "$https_authority" -partial_chain -verify 5 -verify_return_error "$@"
}

# https_split FILE: the body of an answer into FILE; print the status and the headers. The shell reads the head byte by
# byte, so that no byte of the body is lost. Return 1 without an answer, 2 if FILE cannot be written.
https_split() {
    https_end=$(printf '\r')
    IFS= read -r https_line || return 1
    case $https_line in HTTP/*) ;; *) return 1 ;; esac
    https_line=${https_line#* }
    printf '%s\n' "${https_line%% *}"
    while IFS= read -r https_line && [ "$https_line" != "$https_end" ]; do
        printf '%s\n' "${https_line%"$https_end"}"
    done
    cat >"$1" || return 2
}

# print_https_request AUTHORITY PATH FILE HEADERS: a GET, or the PUT of FILE. With HTTP/1.0 the answer's body is neither
# chunked nor followed by another answer.
print_https_request() {
    if [ -z "$3" ]; then
        printf 'GET %s HTTP/1.0\r\nHost: %s\r\nAccept: application/json, */*\r\n%s\r\n' "$2" "$1" "$4"
        return 0
    fi
    printf 'PUT %s HTTP/1.0\r\nHost: %s\r\nAccept: application/json, */*\r\n%s' "$2" "$1" "$4"
    printf 'Content-Type: application/yaml\r\nContent-Length: %d\r\n\r\n' "$(wc -c <"$3")"
    cat "$3"
}

# https_status HOST PORT PATH CA [CERT KEY]: only the status; with 000 the reason on the same line.
https_status() {
    https_get "$@" | awk 'NR == 1 { line = $0 } NR == 2 && line == "000" { line = line " " $0 }
        END { print line }'
}

# https_reason ERRORS STATUS: the most useful line that openssl wrote before it ended with that exit status.
https_reason() {
    # busybox's timeout returns 143 where others return 124.
    case $2 in 124 | 143)
        grep -q '^depth=' "$1" && printf 'connected, but '
        echo "no answer within ${HTTPS_TIMEOUT:-10} s"
        return 0
        ;;
    esac
    awk '
        function keep(text) { if (reason == "") reason = text }
        /^verify error/ { sub(/^verify error:(num=[0-9]+:)?/, ""); keep("certificate: " $0) }
        /errno=/ && other == "" { other = $0 }
        match($0, /Connection refused|No route to host|Network is unreachable/) { other = substr($0, RSTART, RLENGTH) }
        / alert |:alert:/ { n = split($0, part, ":"); for (i = 1; i <= n; i++) if (part[i] ~ /alert/) keep(part[i]) }
        /Can.t (open|load)|unable to load|No such file/ { keep($0) }
        END { print reason != "" ? reason : other != "" ? other : "the connection was closed without an answer" }
    ' "$1"
}

# is_absent REASON: of a request without an answer: nothing listens there, or no packet came back. For any other reason
# something is there that cannot be read.
is_absent() {
    case $1 in
        'Connection refused' | 'No route to host' | 'Network is unreachable' | 'no answer within '*) ;;
        *) return 1 ;;
    esac
}

# describe_answer ANSWER: the status of an answer of https_get, or the reason why there is none.
describe_answer() {
    printf '%s\n' "$1" | awk '
        NR == 1 { line = "status " $0 }
        NR == 2 && line == "status 000" { line = $0 }
        END { print line }'
}
