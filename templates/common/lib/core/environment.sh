# What programs get from the environment: nothing but what is listed here. A proxy, CDPATH, GREP_OPTIONS, TAR_OPTIONS,
# KUBECONFIG, ETCDCTL_ENDPOINTS, DOCKER_HOST, LD_PRELOAD … of root's shell would change which server answers, or what
# is printed, and then a question that failed would look like "nobody answers".
# needs: nothing
# sets: nothing
# shellcheck shell=sh disable=SC2013 # a word a line

# Lower-case names are variables of the scripts; only those of proxies mean something to programs. awk prints names
# without the values, which may have several lines.
for variable in $(awk 'BEGIN { for (name in ENVIRON) if (name ~ /^[A-Za-z_][A-Za-z0-9_]*$/) print name }' \
    </dev/null); do
    case $variable in
        *_[Pp][Rr][Oo][Xx][Yy]) unset "$variable" ;;
        [a-z_]*) ;;
        DESTDIR | HOME | LC_ALL | LOGNAME | PATH | SHELL | TERM | TMPDIR | TZ | USER) ;;
        # for bundler's own scripts: units and tests set them
        API_LOCAL | CERTIFICATES | CHUNK | ETCD_TIMEOUT | HTTPS_TIMEOUT | INTERVAL | MAINPID | MAX_PAUSE | PAGE | \
            PATIENCE | PAUSE | READY_WITHIN | RECONCILE_EVERY) ;;
        # of systemd, and of drop-ins for what a script starts in its place (etcd, the kubelet)
        *_DIRECTORY | INVOCATION_ID | JOURNAL_STREAM | LISTEN_* | NOTIFY_SOCKET | WATCHDOG_* | MEMORY_PRESSURE_*) ;;
        ETCD_[A-Z]* | GODEBUG | GOGC | GOMAXPROCS | GOMEMLIMIT | GOTRACEBACK) ;;
        # read-only in some shells, or set by the shell itself
        BASHOPTS | EUID | OLDPWD | PPID | PWD | SHELLOPTS | SHLVL | UID) ;;
        *) unset "$variable" ;;
    esac
done
