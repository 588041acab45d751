"""`python -m tests.preload.forking`: the process that forks the probe, as the roles of a platform are forked."""

import runpy

from runtime.local.fork_server import next_process

if __name__ == "__main__":
    runpy.run_module(next_process().arguments[2], run_name="__main__", alter_sys=True)
