"""The list of the files that are begun first."""

from pathlib import Path

from tests.longest import LONGEST, TOGETHER, Scheduling

TESTS = Path(__file__).parent


def scope(file: str) -> str:
    made: Scheduling = Scheduling.__new__(Scheduling)
    return made._split_scope(f"tests/{file}::test_it[a::b]")


def test_each_file_exists_and_is_named_once() -> None:
    assert len(set(LONGEST)) == len(LONGEST)
    assert [file for file in LONGEST if not (TESTS / file).is_file()] == []


def test_each_part_of_a_folder_is_begun_early_and_has_several_files() -> None:
    for folder, count in TOGETHER.items():
        parts = [scope(str(file.relative_to(TESTS))) for file in (TESTS.parent / folder).glob("test_*.py")]
        assert len(set(parts)) == count
        assert all(parts.count(part) > 5 for part in parts)
        assert {scope(file) for file in LONGEST[:10]} >= set(parts)


def test_all_tests_of_a_file_are_together() -> None:
    assert scope("e2e/test_boot.py") == "tests/e2e/test_boot.py"
    assert scope("console/test_journey.py") == scope("console/test_journey.py") != "tests/console/test_journey.py"
