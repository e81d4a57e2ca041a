"""Templates of files that are not part of a bundle.

cluster.yaml.j2  the cluster.yaml of bundler init
RUNBOOK.md.j2    dist/RUNBOOK.md
REQUESTS.txt.j2  instructions for the person who signs certificate requests
join.sh          joins files that were split into volumes
"""
