"""Cheap new Postgres clusters: initdb runs once, and its result is copied, as each test's platform has one of its own.

Whoever starts Postgres finds the program `initdb` in PATH: here a script that calls the real one where there is no copy
for these arguments yet, and then gives the copy the password that it was asked for. The cluster is another one than a
new one only in that it has the system identifier of its original. Nothing is synchronised with the disk.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import homes
from runtime.local.child import ServerError
from runtime.local.servers import postgres_programs

SCRIPT = r"""#!/bin/bash
# initdb --pgdata FOLDER --pwfile FILE --username NAME ...
set -euo pipefail
given=("$@") rest=()
while (($#)); do
  case $1 in
    --pgdata) data=$2; shift ;;
    --pwfile) password=$2; shift ;;
    *) [ "$1" != --username ] || user=$2; rest+=("$1") ;;
  esac
  shift
done
if [ -z "${data:-}" ] || [ -z "${password:-}" ] || [ -z "${user:-}" ]; then exec @real@/initdb "${given[@]}"; fi
original=@folder@/$(id -u)-$(sha256sum <<<"${rest[*]}" | cut -c1-16)
if [ ! -d "$original" ]; then
  new=$(mktemp -d @folder@/new.XXXXXX)
  @real@/initdb --pgdata "$new" --pwfile "$password" --no-sync "${rest[@]}"
  mv -T "$new" "$original" || rm -rf "$new"  # somebody else was faster
fi
cp -a "$original/." "$data/"
@real@/postgres --single -c fsync=off -D "$data" postgres >/dev/null <<<"ALTER ROLE $user PASSWORD '$(cat "$password")'"
"""


@contextmanager
def installed() -> Iterator[None]:
    """From now on this process and its children use it, where Postgres is installed."""
    with contextlib.ExitStack() as stack:
        try:
            real = postgres_programs(Path("/none"))
        except ServerError:
            yield
            return
        folder = stack.enter_context(homes.home("initdb"))
        programs, originals = folder / "bin", folder / "originals"
        programs.mkdir(mode=0o755)
        originals.mkdir()
        originals.chmod(0o1777)  # Postgres' user makes them
        for program in real.iterdir():
            if program.name != "initdb":
                (programs / program.name).symlink_to(program)
        script = programs / "initdb"
        script.write_text(SCRIPT.replace("@real@", str(real)).replace("@folder@", str(originals)))
        script.chmod(0o755)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{programs}{os.pathsep}{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before
