"""Add-ons of cluster.yaml: their objects, the images in them, and what hosts apply.

manifests.py  the files of an add-on → text
charts.py     Helm charts: their values, and what Helm makes of them → text
objects.py    text → objects of the Kubernetes API, each with its place
kinds.py      tables: kinds of the API, their scope, where their pods are
hooks.py      hooks of charts: which run, in which order, and which are refused
checks.py     checks of objects, and of add-ons against one another
images.py     the images that objects name
proof.py      which of them are carried, and what cannot be proved
planned.py    what hosts apply, in order
read.py       all of this: cluster.yaml → its add-ons
"""
