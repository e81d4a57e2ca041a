"""Kill install.sh on a host of the lab at a chosen call of a program."""

import shlex

from support.lab import Host

# Programs that precede the real ones in PATH, and kill install.sh at the N-th call.
KILLER = """\
#!/bin/sh
case "{matching}" in "" ) ;; *) case " $* " in *"{matching}"*) ;; *) exec {program} "$@" ;; esac ;; esac
calls=$(($(cat /tmp/calls 2>/dev/null || echo 0) + 1))
echo $calls >/tmp/calls
[ $calls -ne {call} ] || {{ {before} . /tmp/killers/kill-install; exit 1; }}
exec {program} "$@"
"""
KILL_INSTALL = """\
for process in /proc/[0-9]*; do
    case "$(tr '\\0' ' ' <"$process/cmdline" 2>/dev/null)" in
        '/bin/sh /root/'*'/install.sh '*) kill -KILL "${process#/proc/}" ;;
    esac
done
"""


def plant_killer(host: Host, program: str, matching: str, call: int, before: str) -> None:
    real = f"/opt/k8s/bin/{program}" if program == "ctr" else f"/usr/bin/{program}"
    script = KILLER.format(
        matching=matching,
        call=call,
        program=real,
        before=before.replace(program, real) if before else "",
    )
    host.run("rm -rf /tmp/killers /tmp/calls; mkdir /tmp/killers")
    for name, text in ((program, script), ("kill-install", KILL_INSTALL)):
        host.run(
            f"printf '%s' {shlex.quote(text)} >/tmp/killers/{name}; chmod 755 /tmp/killers/{name}"
        )
