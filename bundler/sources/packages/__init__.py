"""The hosts' operating system's packages: which, from where, and what they need."""
