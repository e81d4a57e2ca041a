# The functions of packages.sh for dpkg.
# needs: here package_files work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

dpkg_name_release() { cat; }
dpkg_machine() { dpkg --print-architecture 2>/dev/null || echo "an architecture that dpkg does not report"; }
dpkg_compare() { dpkg --compare-versions "$1" "$2" "$3"; }

# Write `have`, "name version" of what is installed or provided, and `broken`, what is half installed.
dpkg_read() {
    dpkg-query -W -f '${Package}|${Version}|${db:Status-Status}|${Architecture}|${Provides}\n' 2>/dev/null >"$work/dpkg"
    awk -F'|' -v arch="$ARCH" -f "$here/lib/packages/dpkg-have.awk" "$work/dpkg" >"$work/have"
    awk -F'|' '$3 ~ /^(half-|unpacked)/ { print $1 }' "$work/dpkg" >"$work/broken"
}

# --unpack: with --install --no-act dpkg reports cycles of pending triggers by mistake
dpkg_try() { run_dpkg --no-act --no-triggers --unpack; }
dpkg_install() { run_dpkg --install; }
dpkg_finish() { run_dpkg --configure -a; }
dpkg_explain() { sed -n '/^dpkg: /,$p'; }
dpkg_is_locked() { grep -q 'locked by another process'; }

# run_dpkg ARGUMENT...: with --install and --unpack for the packages to install. It asks no question, and keeps
# configuration files that somebody changed.
run_dpkg() (
    cd "$package_files" || exit 1
    case " $* " in
        *' --install '* | *' --unpack '*)
            # shellcheck disable=SC2046 # names of files without spaces
            set -- "$@" $(awk '{ print $1 }' "$work/packages")
            ;;
    esac
    DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true dpkg --force-confdef --force-confold "$@" </dev/null
)

# Of the names on stdin the installed ones.
dpkg_keep_installed() {
    dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null >"$work/dpkg-status"
    awk 'FILENAME == ARGV[1] { if ($2 != "not-installed" && $2 != "config-files") there[$1] = 1; next }
        $1 in there' "$work/dpkg-status" -
}

# dpkg_remove FILE keep|purge: dpkg does not remove what other packages need, and continues with the next one.
dpkg_remove() {
    how=--remove
    [ "$2" = keep ] || how=--purge
    # shellcheck disable=SC2046 # a list of packages
    DEBIAN_FRONTEND=noninteractive dpkg $how $(cat "$1") </dev/null && return 0
    code=$?
    dpkg_keep_installed <"$1" | grep -q . || return 0
    return "$code"
}
