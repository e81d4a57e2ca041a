# The functions of packages.sh for rpm.
# needs: here package_files store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables
#
# LIST has no versions of capabilities: rpm checks them in its test, and again before it changes anything.

rpm_name_release() { sed 's/\..*//'; } # minors of a release share their packages
rpm_machine() {
    case $(rpm --eval '%{_arch}' 2>/dev/null) in
        x86_64) echo amd64 ;;
        aarch64) echo arm64 ;;
        *) echo "an architecture that rpm does not report" ;;
    esac
}

# rpm_compare OLD OPERATOR NEW, with dpkg's operators.
rpm_compare() {
    case "$2 $(rpm --eval "%{lua: print(rpm.vercmp('$1', '$3'))}" 2>/dev/null)" in
        'ge 0' | 'ge 1' | 'gt 1' | 'eq 0' | 'le 0' | 'le -1' | 'lt -1') ;;
        *) return 1 ;;
    esac
}

# Write `have`, what is provided and "name version" of what is installed, and `broken`, what a killed rpm left.
rpm_read() {
    {
        rpm -qa --queryformat '[%{PROVIDENAME}\n]'
        rpm -qa --queryformat '%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n'
    } 2>/dev/null >"$work/have"
    # Programs that packages need by path.
    awk '{ gsub(/[,|]/, "\n", $7); print $7 }' "$here/packages/LIST" | grep '^/' | sort -u | while read -r path; do
        [ ! -e "$path" ] || printf '%s\n' "$path"
    done >>"$work/have"
    cat "$store/packages-begun" 2>/dev/null >"$work/broken"
    [ -s "$work/broken" ] || : >"$work/broken"
}

rpm_try() { run_rpm --test; }
rpm_explain() { grep -v -e '^warning: ' -e '^rpm: ' -e '^Verifying' -e '^Preparing' -e '^error: Failed dependencies:'; }
rpm_is_locked() { grep -q "can't create transaction lock"; }

# After a kill a package may be in rpm's database although its scripts did not run: it is installed again.
rpm_install() {
    awk '{ print $2 }' "$work/packages" >"$store/packages-begun" || return 1
    run_rpm && rm -f "$store/packages-begun"
}

rpm_finish() { :; }

# run_rpm OPTION...: for the packages to install. Their digests are in MANIFEST, and the builder checked their
# signatures; this host does not need the key.
run_rpm() (
    cd "$package_files" || exit 1
    # shellcheck disable=SC2046 # names of files without spaces
    rpm -U --replacepkgs --nosignature "$@" $(awk '{ print $1 }' "$work/packages") </dev/null
)

# Of the names on stdin the installed ones.
rpm_keep_installed() {
    while read -r name; do ! rpm -q "$name" >/dev/null 2>&1 || printf '%s\n' "$name"; done
}

# rpm_remove FILE keep|purge: remove those that no other package needs, until none is left.
rpm_remove() {
    cp "$1" "$work/rpm-left"
    # shellcheck disable=SC2046 # a list of packages
    rpm -e $(cat "$1") 2>/dev/null && return 0
    removed=yes
    while [ "$removed" = yes ]; do
        removed=no
        rpm_keep_installed <"$1" >"$work/rpm-left"
        while read -r name; do
            ! rpm -e "$name" || removed=yes
        done <"$work/rpm-left"
    done
}
