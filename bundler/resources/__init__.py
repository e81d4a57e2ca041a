"""Templates of files that are not part of a bundle: the runbook, CSR instructions, join.sh."""
