"""From one build to another: what differs, and the order in which hosts are updated.

change.py         one difference
diff.py           `bundler diff`: the differences of two bundles
components.py     the differences of their SBOMs
text.py           the differences of text files, with secrets masked
node_labels.py    labels and taints that control planes will set
addons.py         add-ons that control planes will apply or delete
addon_change.py   what changes on a node, and whether it all belongs to one add-on
rollout.py        `bundler plan`: the changes of each host, in rollout order
kubelet_state.py  settings of the kubelet that its state files forbid to change
runbook.py        dist/RUNBOOK.md
"""
