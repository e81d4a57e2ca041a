# What the bundle's versions need of the host, and whether its programs run here.
# needs: here live prefix store work
# sets: nothing
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # the scripts and their parts share their variables

# Lines of requirements.tsv: fact, least, below (- without one), what needs it, fix.
check_requirements() {
    while IFS='	' read -r fact least below text fix; do
        value=$(print_host_fact "$fact")
        if [ -z "$value" ]; then
            add_failure requirements "$text, and the version of this host's $fact cannot be read" "$fix"
        elif { [ "$least" != - ] && is_older "$value" "$least"; } ||
            { [ "$below" != - ] && ! is_older "$value" "$below"; }; then
            add_failure requirements "$text, and this host has $fact $value" "$fix"
        fi
    done <"$here/lib/requirements.tsv"
}

# print_host_fact cgroup|kernel|openssl|systemd: its version. With both hierarchies the kubelet and runtimes use v1.
print_host_fact() {
    case $1 in
        cgroup) if [ -f "$live/sys/fs/cgroup/cgroup.controllers" ]; then echo 2; else echo 1; fi ;;
        kernel) uname -r | sed 's/[^0-9.].*//; s/\.$//' ;;
        openssl) openssl version 2>/dev/null | sed -n '1s/^[^ ]* \([0-9.]*\).*/\1/p' ;;
        systemd) systemctl --version 2>/dev/null | sed -n '1s/^systemd v*\([0-9.]*\).*/\1/p' ;;
    esac
}

# Every new program is started once, from a copy where it will be: the options of the mount, a policy that denies
# unknown programs and a missing library show only then. A library may be in the bundle's packages: then the program
# is tried again after they are installed.
check_programs() {
    awk '$3 == "0755" && $6 ~ /\/bin\// { print $5, $6 }' "$work/changes" >"$work/programs"
    try_programs
    : >"$work/programs-later"
    [ ! -s "$work/packages" ] ||
        awk -F '\t' '$1 == "library" { print $4, $3 }' "$work/refused" >"$work/programs-later"
    [ ! -s "$work/programs-later" ] || {
        awk -F '\t' '$1 != "library"' "$work/refused" >"$work/refused.new"
        mv "$work/refused.new" "$work/refused"
    }
    report_programs
}

check_programs_again() {
    [ -s "$work/programs-later" ] || return 0
    mv "$work/programs-later" "$work/programs"
    try_programs
    report_programs
    [ ! -s "$work/failures" ] || {
        cat "$work/failures" >&2
        die 3 "nothing but the packages of the operating system was changed"
    }
}

# Write "why, reason, path, source" of each program that does not run to $work/refused.
try_programs() {
    : >"$work/refused"
    note_directories
    while read -r source path; do
        directory=$prefix${path%/*}
        remove_former_tries "$directory"
        existing=$(nearest_directory "$directory") try=$directory/.bundler-try.$$
        if { mkdir -p "$directory" && mkdir -m 0700 "$try" && copy_program "$source" "$try/${path##*/}"; } \
            2>"$work/copy.log"; then
            run_program "$try/${path##*/}"
        else
            add_failure programs "$source cannot be copied to $directory: $(tail -n 1 "$work/copy.log")" \
                "find out why, as with df and mount"
        fi
        rm -rf "$try"
        while [ "$directory" != "$existing" ] && rmdir "$directory" 2>/dev/null; do directory=${directory%/*}; done
    done <"$work/programs"
    rm -f "$store/trying"
}

# For bundler-recover.service, which removes the copies there after a power cut. A host without a generation has neither
# the unit nor a place to write.
note_directories() {
    [ ! -f "$store/current" ] || awk -v prefix="$prefix" '
        { sub(/\/[^\/]*$/, "", $2); if (!seen[$2]++) print prefix $2 }' "$work/programs" >"$store/trying"
}

# remove_former_tries DIRECTORY: what a killed run left there, with the directories that it made.
remove_former_tries() {
    for former in "$1"/.bundler-try.*; do
        if [ ! -d "$former" ] || kill -0 "${former##*.}" 2>/dev/null; then continue; fi
        rm -rf "$former"
        rmdir "$1" "${1%/*}" 2>/dev/null
    done
}

# A link needs no space; a program on another file system, or one that cannot be run where it is, is copied.
copy_program() {
    if [ -x "$here/$1" ] && ln "$here/$1" "$2" 2>/dev/null; then return 0; fi
    copy_bundle_file "$1" "$2" && chmod 0755 "$2"
}

# Any exit status of its own is fine: it ran. Statuses from 126 on are those of env, of the loader and of signals.
# A file that is neither an ELF program nor a script is not run: env would give it to a shell.
run_program() {
    case $(od -An -tx1 -N2 "$1") in
        *7f*45* | *23*21*) ;;
        *)
            printf 'format\tit is not a program\t%s\t%s\n' "$path" "$source" >>"$work/refused"
            return 0
            ;;
    esac
    case ${1##*/} in
        etcdctl | etcdutl) set -- "$1" version ;;
        kubectl) set -- "$1" version --client ;;
        bridge | host-local | loopback | portmap) ;; # with CNI_COMMAND=VERSION
        *) set -- "$1" --version ;;
    esac
    { # bash names the signal on stderr
        timeout 60 env -i PATH="$PATH" HOME="$try" ETCDCTL_API=3 CNI_COMMAND=VERSION "$@" </dev/null >"$work/tried" 2>&1
        code=$?
    } 2>/dev/null
    reason=$(awk '/shared librar|GLIBC|symbol lookup/ {
        sub(/.*(shared libraries|symbol lookup error): /, "")
        if (match($0, /version .GLIBC[^(]*/)) $0 = substr($0, RSTART, RLENGTH - 1)
        print
        exit
    }' "$work/tried")
    why=library
    if [ -z "$reason" ]; then
        [ "$code" -ge 126 ] || return 0
        why=denied reason=$(tail -n 1 "$work/tried" | sed 's/.*: //')
        [ "$code" -le 127 ] || why=signal reason="it ended by signal $((code - 128))"
    fi
    printf '%s\t%s\t%s\t%s\n' "$why" "${reason:-exit status $code}" "$path" "$source" >>"$work/refused"
}

# One failure for all programs of a directory that do not run for the same reason.
report_programs() {
    awk -F '\t' '{ sub(/\/[^\/]*$/, "", $3); print $1 "\t" $2 "\t" $3 }' "$work/refused" | sort -u >"$work/refusals"
    while IFS='	' read -r why reason directory; do
        names=$(awk -F '\t' -v why="$why" -v reason="$reason" -v directory="$directory/" '
            $1 == why && $2 == reason && index($3, directory) == 1 { printf " %s", substr($3, length(directory) + 1) }
        ' "$work/refused")
        add_failure programs "$directory: these programs cannot run here ($reason):$names" \
            "$(explain_refusal "$why" "$directory" | sed '2,$s/^/         /')"
    done <"$work/refusals"
}

# explain_refusal WHY DIRECTORY: the likely cause, and the fix.
explain_refusal() {
    mount=$(df -P "$(nearest_directory "$prefix$2")" | awk 'NR == 2 { print $NF }')
    case $1 in
        library) echo "this host's libraries are too old or missing: install the package that has the library, or
set artifacts in cluster.yaml to a static build, as containerd-static" ;;
        format) echo "set artifacts in cluster.yaml to the right file, and build again" ;;
        signal) echo "the processor lacks an instruction that it needs, or the file is damaged: see journalctl -k" ;;
        *)
            if is_mounted_noexec "$mount"; then
                echo "$mount is mounted noexec: remove noexec in /etc/fstab, then: mount -o remount,exec $mount"
            elif is_active fapolicyd.service; then
                printf '%s\n' "fapolicyd denies programs that it does not know. Allow this directory:
echo 'allow perm=any all : dir=$2/' >>/etc/fapolicyd/rules.d/30-bundler.rules; fagenrules --load
(it may also deny programs in images: its authors say that it does not work with containers)"
            else
                echo "find what denies it: ausearch -m AVC,FANOTIFY -ts recent; journalctl -k"
            fi
            ;;
    esac
}

is_mounted_noexec() {
    awk -v mount="$1" '{ gsub(/\\040/, " ", $2) } $2 == mount { options = "," $4 "," }
        END { exit options !~ /,noexec,/ }' "$live/proc/self/mounts"
}
