"""docs/attackers.md names tests that exist, and all tests of attacks."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = set(re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", (ROOT / "docs" / "attackers.md").read_text()))
#: The files of tests of attacks in browsers.
IN_BROWSERS = ("attacks", "other_sites", "sessions_in_browser", "guessed_addresses")
#: Tests of attacks that show that others can fail, or that belong to another one.
BESIDE = {
    ("tests/attacks/test_frames.py", "test_without_filters_all_of_it_arrives"),
    ("tests/attacks/test_bridge.py", "test_a_table_that_was_removed_is_made_again_with_the_addresses"),
    ("tests/attacks/test_bridge.py", "test_a_changed_table_is_repaired"),
    ("tests/attacks/test_bridge.py", "test_another_process_of_the_daemon_keeps_the_addresses"),
    ("tests/attacks/test_bridge.py", "test_addresses_of_guests_that_have_ended_are_free"),
    ("tests/attacks/test_bridge.py", "test_an_answer_for_a_neighbour_gives_no_right_to_its_address"),
    ("tests/attacks/test_dhcp.py", "test_a_guest_that_was_suspended_has_its_address_still"),
    ("tests/attacks/test_dhcp.py", "test_the_server_may_have_another_address_than_the_first_of_its_bridge"),
    ("tests/attacks/test_ipv6.py", "test_ipv6_reaches_the_own_project"),
}


def functions_of(file: Path) -> set[str]:
    found = ast.walk(ast.parse(file.read_text()))
    functions = (each for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    return {each.name for each in functions if each.name.startswith("test_")}


def test_each_named_test_exists() -> None:
    missing = {(file, name) for file, name in NAMED if name not in functions_of(ROOT / file)}
    assert NAMED
    assert missing == set()


def test_each_test_of_an_attack_is_named() -> None:
    files = set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}
    files |= {ROOT / "tests" / "console" / f"test_{name}.py" for name in IN_BROWSERS}
    all_of_them = {(str(file.relative_to(ROOT)), name) for file in files for name in functions_of(file)}
    assert all_of_them - NAMED == BESIDE


def test_each_attacker_is_seen_or_said_to_be_unseen() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs" / "attackers.md").read_text().splitlines() if "::" in line]
    assert all(len(row) == 4 and row[3].strip(" |") for row in rows)
