"""cluster.yaml: its schema, its checks, and the desired state made from it.

schema.py               models of cluster.yaml, with a description of each key
schema_network.py       the same: network and control_plane
schema_runtime.py       the same: container runtime
schema_registry.py      the same: the cluster's own registry
schema_settings.py      the same: Kubernetes, etcd, DNS, certificates, maintenance
schema_nodes.py         the same: nodes, their roles and files, `extra`
schema_policy.py        the same: tls, admission, authentication, authorization
schema_audit.py         the same: audit
schema_encryption.py    the same: encryption
schema_addons.py        the same: addons
inputs.py               the same: images, upstream files and their signers, OS packages
values.py               types of single values
keys.py                 every key with type, default and description: the reference and `explain`
json_schema.py          the JSON Schema of cluster.yaml, for editors: `bundler schema`
loader.py               YAML → Cluster; every error with its line
parts.py                cluster.yaml, the files that it includes, and lists of nodes
sourced.py              values with the places where they are written, and how layers merge
fleet.py                defaults and groups → what each node has
effective.py            a node's whole description, each value with its place
validation_messages.py  one message for each wrong value, with the value to write
problem.py              what checks yield
checks.py               checks of fields against one another
network_addon.py        the add-on that makes the pod network comes before the others
pod_network_checks.py   checks of the pod network, Services and NetworkPolicies
runtime_checks.py       checks of the container runtime, and of programs that do not run
network_checks.py       checks of addresses, networks and ports
extra_checks.py         checks of `extra`
field_types.py          types of the fields in `extra`, by minor
tls_checks.py           checks of `tls`
policy.py               what the policy keys mean at a minor
policy_checks.py        checks of `admission`, `authentication`, `authorization`
client_checks.py        checks of the files with which a server of the site is reached
plan_conflicts.py       settings in `extra` that contradict the plan
registry_service.py     the cluster's own registry: what it holds, who may write, and checks
registry_checks.py      checks of registries, mirrors and logins
requirements.py         what versions require of hosts: cgroup, glibc, kernel, systemd
cis.py                  checks of the CIS benchmark, and what each one needs
profile.py              what `profile` sets, and what contradicts it
weakenings.py           settings that weaken the cluster
lifecycle.py            release lines that upstream no longer maintains
addons/                 what the control planes apply, and the images in it
images.py               images that the cluster needs, and checks of `images`
os_packages.py          distributions and OS packages, and checks of `packages`
accepted.py             flags and fields that the real programs accept, by minor
audit_policy.py         audit policies of a site, and which of their rules log secrets
audit_syslog.py         files with which a host's rsyslog follows the audit log, and their checks
components.py           tables of what runs where
settings.py             flags and configuration fields of a minor, with `extra` merged over them
taints.py               taints, and those with which kubelets register their Nodes
node_labels.py          labels, annotations and taints of Nodes
handlers.py             runtime handlers: other programs than runc, and their RuntimeClasses
site_files.py           files of a site, and the places that are not theirs
service_users.py        users of units, what they may read, their sandboxes
host_needs.py           kernel settings and open ports of a node
needed_addons.py        which add-ons an add-on needs
planned_addons.py       an add-on as hosts have it
known_addons.py         add-ons that were tried: what to write for them
plan.py                 Cluster → ClusterPlan: the desired state, with every default set
"""
