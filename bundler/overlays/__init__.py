"""Overlays: the folders of templates/ that make up a node's bundle.

selection.py    which overlays a node has
files.py        the files in them, and which programs they take from upstream archives
templating.py   Jinja: filters, compiling, rendering
"""
