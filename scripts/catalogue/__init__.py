"""Rows of bundler's catalog from the sources of Kubernetes: make catalogue."""
