#!/bin/sh
# Does this host's nginx lead to an API server? A TLS handshake through it tells.
#
# Usage: check-endpoint.sh PORT        run by keepalived; the exit status is the answer
port=${1:?usage: check-endpoint.sh PORT}
timeout 4 openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null |
    grep -q -e '-----BEGIN CERTIFICATE-----'
