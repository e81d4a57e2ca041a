"""From one build to another: what differs, and in which order hosts take it.

change.py      a difference that can be told
diff.py        between two bundles
components.py  in their SBOMs
text.py        in text files, secrets masked
rollout.py     host by host
runbook.py     dist/RUNBOOK.md
"""
