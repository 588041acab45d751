"""The processes that serve HTTP load no command line of a library: it takes memory of each."""

import subprocess
import sys

import pytest

from cli.local.role import ROLES

PROGRAM = """
import importlib, sys
from cli.local import role
role.spare(sys.argv[1])
importlib.import_module(role.ROLES[sys.argv[1]][0])
import uvicorn, uvicorn.server
assert uvicorn.Server is uvicorn.server.Server
print(*(name for name in ("click", "rich", "uvicorn.supervisors") if sys.modules.get(name) is not None))
"""


@pytest.mark.parametrize("role", ["gateway", "guest-data"])
def test_a_role_that_serves_http_loads_no_command_line(role: str) -> None:
    assert role in ROLES
    found = subprocess.run([sys.executable, "-c", PROGRAM, role], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
