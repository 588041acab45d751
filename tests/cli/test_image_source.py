"""What is secret in the URL of an image is no part of its id, and nothing that the command line prints."""

from pathlib import Path

import pytest

from cli.client.errors import CliError
from cli.demo import demo_steps
from tests.cli.conftest import Nebula
from tests.cli.fake import Platform

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("source", "id_"),
    [
        (f"https://h/debian-12.qcow2?X-Amz-Signature={SECRET}", "debian-12"),
        (f"https://h/image?token={SECRET}", "image"),
        (f"https://h/image?token=a/{SECRET}", "image"),
        (f"HTTPS://me:{SECRET}@h/a/Disk_1.raw", "disk-1"),
        (f"https://h/i.qcow2?sig=a.{SECRET}", "i"),
        (f"https://h/i.qcow2#{SECRET}", "i"),
    ],
)
def test_an_image_is_called_by_the_path_of_its_url(nebula: Nebula, platform: Platform, source: str, id_: str) -> None:
    ran = nebula("image", "register", source)
    assert [(body["id"], body["name"]) for body in platform.bodies] == [(id_, id_)]
    assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize("source", [f"https://me:{SECRET}@h", f"https://h/?{SECRET}", f"https://[h?a={SECRET}"])
def test_a_url_without_a_file_name_needs_an_id(nebula: Nebula, platform: Platform, source: str) -> None:
    ran = nebula("image", "register", source)
    assert ran.status == 2 and "--id" in ran.err
    assert SECRET not in ran.err
    assert not platform.requests


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1/i?sig={SECRET}",
        f"http://me:{SECRET}@127.0.0.1:1/i",
        f"http://127.0.0.1:1/i?sig=a b {SECRET}",
    ],
)
def test_the_demo_does_not_show_it_either(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CliError) as ended:
        demo_steps.download(url, tmp_path)
    said = str(ended.value) + capsys.readouterr().out
    assert "downloading http://" in said
    assert SECRET not in said
