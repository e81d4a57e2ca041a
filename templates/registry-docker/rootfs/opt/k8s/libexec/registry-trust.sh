#!/bin/sh
# Make Docker trust the cluster's CA for the hosts of the registry: /etc/docker/certs.d/HOST:PORT/ca.crt.
#
# Usage: registry-trust.sh HOST:PORT...         run by docker.service before it starts
#
# The links follow the CA's file, which changes when the CA is rotated; Docker reads them at each pull.
# Exit code: 0 done, 1 it failed.
# DESTDIR    prepended to all paths
set -eu
prefix=${DESTDIR:-}
for host; do
    mkdir -p "$prefix/etc/docker/certs.d/$host"
    ln -sf /etc/kubernetes/pki/ca.crt "$prefix/etc/docker/certs.d/$host/ca.crt"
done
