#!/bin/sh
# Inside the builder container: build Kubernetes' conformance tests, and the programs of their images, from Debian's
# source package.
#
#   build.sh VERSION                 leaves /lab/conformance-VERSION/
#       {e2e.test,ginkgo}                             what runs the tests
#       {agnhost,nnp,sample-apiserver}                programs of images
#       {porter,nautilus,kitten}/                     files of images
set -eu
. /scripts/builder-apt.sh
. /scripts/kubernetes-source.sh
version=$1
out=/lab/conformance-$version

enter_kubernetes_source "$version"
rm -rf "$out.new"
make_kubernetes "$out.new" test/e2e/e2e.test vendor/github.com/onsi/ginkgo/ginkgo
for package in test/images/agnhost:agnhost test/images/nonewprivs:nnp vendor/k8s.io/sample-apiserver:sample-apiserver; do
    go build -trimpath -ldflags '-s -w' -o "$out.new/${package#*:}" "k8s.io/kubernetes/${package%:*}"
done
mkdir "$out.new/porter"
cp test/images/agnhost/porter/localhost.crt test/images/agnhost/porter/localhost.key "$out.new/porter/"
for image in nautilus kitten; do cp -r "test/images/$image/html" "$out.new/$image"; done
sync
rm -rf "$out" && mv "$out.new" "$out"
