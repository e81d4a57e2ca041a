# files ("sha256 path", recorded by the last run), changes, digests ("sha256 *./path" of this host's files) → paths
# that bundler installed and somebody changed. A file that has its new content already is not listed.
FILENAME == ARGV[1] { known[$2] = 1; ours[$1 " " $2] = 1; next }
FILENAME == ARGV[2] { ours[$2 " " $6] = 1; next }
{ path = substr($2, 3) }
path in known && !(($1 " " path) in ours) { print path }
