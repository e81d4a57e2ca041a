"""cluster.yaml: its schema, its checks, and the desired state made from it.

schema.py               models of cluster.yaml, with a description of each key
schema_network.py       the same: network and control_plane
schema_runtime.py       the same: container runtime
inputs.py               the same: images, upstream files and their signers, OS packages
values.py               types of single values
keys.py                 every key with type, default and description: the reference and `explain`
loader.py               YAML → Cluster; every error with its line
validation_messages.py  one message for each wrong value, with the value to write
problem.py              what checks yield
checks.py               checks of fields against one another
network_checks.py       checks of addresses, networks and ports
extra_checks.py         checks of `extra`
field_types.py          types of the fields in `extra`, by minor
plan_conflicts.py       settings in `extra` that contradict the plan
registry_checks.py      checks of registries, mirrors and logins
requirements.py         what versions require of hosts: cgroup, glibc, kernel, systemd
weakenings.py           settings that weaken the cluster
images.py               images that the cluster needs, and checks of `images`
os_packages.py          distributions and OS packages, and checks of `packages`
accepted.py             flags and fields that the real programs accept, by minor
audit_policy.py         audit policies of a site, and which of their rules log secrets
components.py           tables of what runs where
settings.py             flags and configuration fields of a minor, with `extra` merged over them
taints.py               the taints with which kubelets register their Nodes
host_needs.py           kernel settings and open ports of a node
plan.py                 Cluster → ClusterPlan: the desired state, with every default set
"""
