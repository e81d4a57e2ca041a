"""The hosts' operating system's packages: which, from where, and each node's share of them."""
