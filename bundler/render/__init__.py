"""Render the bundle of a node as a tree of files, from templates/.

node.py              overlays + context → tree
context.py           the values that templates can use
state_values.py      of these, those that come from the state directory
registries.py        hosts.toml for containerd
registry.py          the cluster's own registry on its hosts
policy.py            the values for the policy of a cluster
addons.py            the add-ons of cluster.yaml, as files of control planes
audit.py             the audit policy of a site
site_files.py        files of a site, and their table
cis.py               the checks of a host, and how to run kube-bench there
flannel_requests.py  which requests of flannel reach etcd
kubelet_settings.py  what verify.sh compares with /configz of the kubelets
images.py            the images of a node
packages.py          the packages of a node
tree.py              files, and how a tree is written
bundle_manifest.py   MANIFEST: every file and its digest
completeness.py      checks that every image named in a bundle is in it
"""
