"""bundler: offline bundles for Kubernetes on plain hosts."""

__version__ = "0.1.0"
