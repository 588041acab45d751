"""`python -m tests.preload.probe [STATUS]`: prints what a process sees of itself, and ends; `sleep`: does not end."""

import fcntl
import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

STATUS = ("Uid", "Gid", "Groups", "Umask", "Threads", "CapEff", "NoNewPrivs", "SigBlk", "SigIgn", "SigCgt", "Seccomp")


def seen() -> dict[str, Any]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    streams: Any = (sys.stdin, sys.stdout, sys.stderr)
    return {
        "arguments": sys.argv,
        "original arguments": sys.orig_argv,
        "shown": [
            Path(f"/proc/self/{name}").read_text(errors="surrogateescape").split("\0")
            for name in ("cmdline", "environ")
        ],
        "environment": dict(os.environ),
        "path": sys.path,
        "folder": str(Path.cwd()),
        "parent": os.getppid(),
        "session": os.getsid(0) == os.getpid() or os.getsid(0),
        "group": os.getpgid(0) == os.getpid() or os.getpgid(0),
        "files": [(n, os.readlink(f"/proc/self/fd/{n}"), fcntl.fcntl(n, fcntl.F_GETFL)) for n in range(3)],
        "number of files": len(os.listdir("/proc/self/fd")),
        "streams": [(s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty()) for s in streams],
        "signals": {int(n): str(signal.getsignal(n)).partition(" at ")[0] for n in signal.valid_signals()},
        "limits": Path("/proc/self/limits").read_text().splitlines(),
        "status": {name: status[name] for name in STATUS},
        "flags": str(sys.flags),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "module": (__name__, __package__, __file__, sys.modules["__main__"] is sys.modules[__name__]),
        "thread": threading.current_thread() is threading.main_thread(),
    }


if __name__ == "__main__":
    print(json.dumps(seen()), flush="sleep" in sys.argv)
    if "sleep" in sys.argv:
        time.sleep(600)
    sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
