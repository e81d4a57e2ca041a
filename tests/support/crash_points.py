"""Kill a script, and all that it started, when it starts its n-th program."""

from pathlib import Path

from support.shells import write_program

PLACES = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
# It starts no program itself: the number is the length of a line, one character for each program.
# The shell that runs the script leads a session; `timeout` and what it starts have a process group of their own.
KILL_AT = """\
name=${{0##*/}}
printf . >>{directory}/count
echo "$name" >>{directory}/started
read -r at <{directory}/kill-at
read -r count <{directory}/count
if [ "${{#count}}" -ge "$at" ]; then
    read -r _ _ _ _ _ session _ </proc/$$/stat
    echo "$name $*" >{directory}/killed
    kill -KILL "-$session"
    kill -KILL 0
fi
exec {directory}/real/$name "$@"
"""
NEVER = 1_000_000


class Killer:
    """A directory for the head of PATH, whose programs count themselves, and then run the real ones.

    The real ones are in `more_programs` and PLACES, in this order.
    """

    def __init__(self, directory: Path, *more_programs: Path) -> None:
        self.directory = directory
        self.programs = directory / "programs"
        count = self.programs / "count"
        write_program(count, KILL_AT.format(directory=directory))
        (directory / "real").mkdir()
        for place in (*more_programs, *map(Path, PLACES)):
            for path in place.iterdir():
                if not (directory / "real" / path.name).is_symlink():
                    (directory / "real" / path.name).symlink_to(path)
                    (self.programs / path.name).symlink_to(count)

    def arm(self, number: int = NEVER) -> None:
        """Kill at this program from now on; the first has the number 1."""
        (self.directory / "started").write_text("")
        (self.directory / "count").write_text("")
        (self.directory / "killed").unlink(missing_ok=True)
        (self.directory / "kill-at").write_text(f"{number}\n")

    def started(self) -> list[str]:
        """The names of the programs that were started, in order."""
        return (self.directory / "started").read_text().splitlines()

    def killed(self) -> str:
        """The program before which the script was killed; empty if it was not."""
        path = self.directory / "killed"
        return path.read_text().strip() if path.exists() else ""
