#!/bin/sh
# Check with a TLS handshake that nginx on this host reaches an API server.
#
# Usage: check-endpoint.sh PORT        run by keepalived; exit code 0 if it does
port=${1:?usage: check-endpoint.sh PORT}
timeout 4 openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null |
    grep -q -e '-----BEGIN CERTIFICATE-----'
