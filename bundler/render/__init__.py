"""A node's bundle as a tree of files, rendered from templates/.

overlays.py      which folders of templates/ a node has
context.py       what a template may say
render.py        overlays + context → tree
registries.py    hosts.toml for containerd
images.py        a node's share of the images
packages.py      a node's share of the packages
tree.py          files, and the tree written out
manifest.py      MANIFEST: every file and its digest
completeness.py  every image that is named is in it
"""
