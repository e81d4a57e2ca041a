# shellcheck shell=sh
# Sourced in the builder container: apt with the package sources of the machine, source packages included.

use_host_apt() {
    if [ -d /host-apt ]; then
        rm -rf /etc/apt/sources.list.d /etc/apt/sources.list
        mkdir -p /etc/apt/sources.list.d
        for file in /host-apt/sources.list /host-apt/sources.list.d/*.sources /host-apt/sources.list.d/*.list; do
            [ -f "$file" ] && cp "$file" /etc/apt/sources.list.d/
        done
        if [ -f /etc/apt/sources.list.d/sources.list ]; then mv /etc/apt/sources.list.d/sources.list /etc/apt/sources.list; fi
    fi
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        sed 's/^Types:.*/Types: deb deb-src/' "$file" >"$file.new" && mv "$file.new" "$file"
    done
    printf 'Acquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\nAcquire::Languages "none";\n' >/etc/apt/apt.conf.d/99lab
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
}
