"""What the documentation names is there: settings, files, headings, decisions, commands and their options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined

from cli.demo.demo_steps import DemoSettings
from cli.local.up import UpSettings
from cli.main import app
from gateway.commands.accepted import VIEWS
from gateway.commands.actions import ACTIONS
from handlers.commands.routes import ROUTES
from projections.operation_rows import OperationView
from runtime import subjects
from runtime.settings import AuthoritySettings, Common, NodeSettings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEPLOYED = [ROOT / name for name in ("compose.yaml", "Dockerfile", "nats.conf", "postgres.sql", "scripts/setup.sh")]
SETTINGS = ROOT / "docs" / "settings.md"

#: Names that are no setting of a role: those of the command line, of setup, of compose.yaml and of nats.conf.
BESIDE = {
    *("NEBULA_URL", "NEBULA_TOKEN", "NEBULA_PROJECT"),
    *("NEBULA_POSTGRES_PASSWORD", "NEBULA_POSTGRES_PROJECTIONS_PASSWORD", "NEBULA_POSTGRES_GATEWAY_PASSWORD"),
    *("NEBULA_SEED_ADDRESS", "NEBULA_NATS_PORT", "NEBULA_NATS_STORE"),
    "NEBULA_BROWSER",
}


PROGRAM: Any = typer.main.get_command(app)


def name_of(field: str) -> str:
    return f"NEBULA_{field.upper()}"


def of(*kinds: type[Common]) -> dict[str, list[Any]]:
    """The settings of these classes: name, and the defaults that it has."""
    found: dict[str, list[Any]] = {}
    for kind in kinds:
        for field, about in kind.model_fields.items():
            found.setdefault(name_of(field), []).append(about.default)
    return found


KNOWN = of(UpSettings, NodeSettings, AuthoritySettings, DemoSettings)
STREAMS = {value for value in vars(subjects).values() if isinstance(value, str) and value.startswith("NEBULA_")}


def rows(page: Path) -> Iterator[list[str]]:
    for line in page.read_text().splitlines():
        if line.startswith("| `NEBULA_"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize("page", [*PAGES, *DEPLOYED], ids=lambda page: page.name)
def test_every_name_is_of_a_setting_or_a_stream(page: Path) -> None:
    named = set(re.findall(r"\bNEBULA_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()))
    assert named - {"NEBULA_POSTGRES"} - KNOWN.keys() - STREAMS - BESIDE == set()


def test_every_setting_is_explained_with_its_default() -> None:
    told: dict[str, list[str]] = {}
    for row in rows(SETTINGS):
        names = re.findall(r"`(NEBULA_\w+)`", row[0])
        defaults = re.findall(r"`([^`]*)`", row[1])
        for at, name in enumerate(names):
            told.setdefault(name, []).append(defaults[at] if len(defaults) == len(names) else row[1])
    public = KNOWN.keys() - {"NEBULA_URL", "NEBULA_TOKEN"}
    assert public - told.keys() == set()
    for name in public:
        for default in KNOWN[name]:
            if default is PydanticUndefined or not isinstance(default, str | bool | int | float):
                continue
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            shown = shown.lower() if isinstance(default, bool) else shown
            assert any((shown or "-") in text.split() for text in told[name]), (name, default, told[name])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        target, _, heading = link.partition("#")
        file = page.parent / target if target else page
        if link.startswith("https://"):
            continue
        if not file.exists() or (heading and heading not in anchors(file)):
            wrong.append(link)
    assert wrong == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_ours_is_there(page: Path) -> None:
    named = re.findall(r"`([a-z_]+/[\w./-]+\.(?:py|md|json|sh))`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_decision_that_is_referred_to_is_there() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text()
    there = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert there == list(range(1, len(there) + 1))
    named = {int(number) for number in re.findall(r"\((\d{1,2})\)", text)}
    sources = [
        *PAGES,
        *(file for room in ROOT.iterdir() if (room / "__init__.py").exists() for file in room.rglob("*.py")),
    ]
    for source in sources:
        named |= {int(number) for number in re.findall(r"\bdecision (\d+)", source.read_text())}
    assert named - set(there) == set()


def commands(page: Path) -> Iterator[list[str]]:
    """Every `nebula …` that a reader may type, in words; of alternatives (`a | b`) and pipes the first."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    inside = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in inside for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines:
        for typed in re.findall(r"(?:^|[;$(] ?|do |[A-Z_]+=\S+ )nebula ([a-z][^;|)…]*)", line):
            if typed != "checkpoint 1":  # the first line of what a checkpoint signs
                yield shlex.split(typed.replace("'", ""), comments=True)


def of_command_line(words: list[str]) -> str | None:
    """What is wrong with a command; None where nothing is."""
    at = PROGRAM
    options = options_of(at)
    for word in words:
        known = getattr(at, "commands", {})
        if word in known:
            at = known[word]
            options |= options_of(at)
        elif known and not word.startswith("-") and not at.invoke_without_command:
            return f"no command {word}"
        elif word.startswith("--") and word.partition("=")[0] not in options | {"--help"}:
            return f"no option {word}"
    return None


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    assert of_command_line(["vm", "create", "web-1", "--image", "x", "--output", "json"]) is None
    assert of_command_line(["vm", "explode", "web-1"]) == "no command explode"
    assert of_command_line(["vm", "stop", "web-1", "--gently"]) == "no option --gently"
    assert len(list(commands(ROOT / "README.md"))) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_is_there(page: Path) -> None:
    wrong = {" ".join(words): of_command_line(words) for words in commands(page)}
    assert {typed: why for typed, why in wrong.items() if why} == {}


def test_every_command_on_the_bus_is_described() -> None:
    text = (ROOT / "docs" / "command-protocol.md").read_text()
    kinds = "|".join(sorted({kind for kind, _ in ROUTES}))
    rows = re.findall(rf"^\| ({kinds}) \| ([a-z, -]+) \|", text, re.MULTILINE)
    assert {(kind, verb) for kind, verbs in rows for verb in verbs.split(", ")} == ROUTES.keys()


def test_every_call_of_a_verb_is_described() -> None:
    """Each `POST …/<verb>` has its row among the resources of the HTTP API's page."""
    rows = re.findall(r"^\| .*$", (ROOT / "docs" / "http-api.md").read_text(), re.MULTILINE)
    verbs = [(action.kind, action.verb) for action in ACTIONS if action.path.endswith(f"/{action.verb}")]
    missing = [
        f"{kind} {verb}" for kind, verb in verbs if not any(f"{{{kind}}}" in row and f"/{verb}`" in row for row in rows)
    ]
    assert missing == []


#: Heading of an example in the HTTP API's page (or how it begins), and the view that it is one of.
EXAMPLES = [
    ("## A VM\n\n```json\n", VIEWS["vm"]),
    ("## An operation\n\n```json\n", OperationView),
    ("## An image and a node\n\n```json\n", VIEWS["image"]),
    ('```json\n{"id": "host-1"', VIEWS["node"]),
]


@pytest.mark.parametrize(("beginning", "view"), EXAMPLES, ids=lambda part: getattr(part, "__name__", "of"))
def test_what_the_api_answers_is_shown_whole(beginning: str, view: Any) -> None:
    """Each example has all members that the API's description has."""
    _, found, rest = (ROOT / "docs" / "http-api.md").read_text().partition(beginning)
    assert found
    example = rest.partition("```")[0]
    members = TypeAdapter(view).json_schema(mode="serialization")["properties"]
    assert [member for member in members if f'"{member}":' not in example] == (["id"] if "host" in beginning else [])
