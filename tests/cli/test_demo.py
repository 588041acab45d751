"""`nebula demo` where it fails: it says at which step, and stops what it started. `make demo` shows the rest."""

import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import environment, is_ours


def test_a_bad_image_ends_it_and_nothing_stays(home: Path) -> None:
    image = home / "image.qcow2"
    image.write_text("no image")
    settings = environment(home, DEMO_IMAGE=str(image))
    command = [sys.executable, "-m", "cli.main", "demo"]
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "[ 3/12] Create a project and register the image" in ended.stdout
    assert "FAILED" in ended.stdout
    assert "(image_invalid)" in ended.stdout
    assert "[ 4/12]" not in ended.stdout
    assert ended.stderr.endswith("error: failed at step 3, Create a project and register the image\n")
    processes = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    assert not any(is_ours(pid, home) for pid in processes)
