"""A kind of which a part was forgotten does not start; neither does a verb."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest

import domain
import projections
from domain.base import Command, Event, Rejected
from domain.flavor import FLAVOR, CreateFlavor, FlavorCreated, FlavorRestored, RestoreFlavor
from domain.image import ImageRegistered
from domain.kind import Kind, no_references
from domain.kinds import KINDS, faults
from domain.project import PROJECT, CreateProject, ProjectCreated
from domain.references import FinishDeletion, Users, names_in
from domain.service_account import ServiceAccountCreated
from domain.tag import TAG, TagCreated
from domain.user import UserCreated
from domain.verb import Effect, Verb
from domain.vm.values import Spec
from domain.vm.verb import VmVerb
from domain.vm.verbs import VERBS, in_file
from domain.vm.verbs.create import CREATE, CreateVm
from domain.vm.verbs.forget import FORGET
from domain.vm.verbs.rebuild import REBUILD
from domain.vm.verbs.start import VmStartRequested
from gateway.commands import bodies
from gateway.commands.actions import ACTIONS
from handlers.commands.lookups import Lookup, NamedImages, check_features, lookup_of
from handlers.commands.routes import Route
from projections.aggregates import Aggregates
from projections.books import MODELS, TABLES, check
from projections.model import ReadModel
from projections.past.models import PAST_MODELS
from tests.domain.story import at, uid


class Nameless(FlavorRestored):
    """An event whose TOPIC was forgotten: it would be written under that of another."""


class RestoredBy(FlavorRestored):
    """An event that cannot be read again if its field is None."""

    actor: str | None


class RestoreBy(RestoreFlavor):
    """A command that cannot be read on the bus if its field is None."""

    reason: str | None


def without(name: str) -> Mapping[str, Kind[Any, Any]]:
    return {key: kind for key, kind in KINDS.items() if key != name}


def with_(kind: Kind[Any, Any], **parts: Any) -> Mapping[str, Kind[Any, Any]]:
    return {**KINDS, kind.name: replace(kind, **parts)}


def verbs(kind: Kind[Any, Any], of: str, /, **parts: Any) -> Mapping[str, Kind[Any, Any]]:
    return with_(kind, verbs=tuple(replace(verb, **parts) if verb.name == of else verb for verb in kind.verbs))


FORGOTTEN = {
    "no kind": (without("flavor"), "no kind says that nebula.flavor.FlavorCreated is its event"),
    "an event": (with_(FLAVOR, events=()), "no kind says that nebula.flavor.FlavorDeletionBegun is its event"),
    "a verb": (with_(FLAVOR, verbs=FLAVOR.verbs[1:]), "no kind says that nebula.flavor.FlavorCreated is its event"),
    "a topic": (with_(FLAVOR, events=(*FLAVOR.events, Nameless)), "Nameless, an event of kind flavor, has no TOPIC"),
    "whose event": (with_(FLAVOR, events=(*FLAVOR.events, TagCreated)), "two kinds say that nebula.tag.TagCreated"),
    "a name": (verbs(FLAVOR, "restore", name="deprecate"), "two verbs of kind flavor have the name deprecate"),
    "usable": (with_(FLAVOR, usable=None), "flavor of kind vm names a flavor, which is not a kind with `usable`"),
    "usable of a project": (with_(PROJECT, usable=None), "project of kind flavor names a project, which is not a kind"),
    "refers": (with_(FLAVOR, refers=no_references), "kind flavor has fields with `Names`, and no `refers`"),
    "two steps": (
        verbs(TAG, "delete", two_steps=False),
        "others may refer to kind tag: its verb delete has to have `two_steps`",
    ),
    "a default": (
        with_(FLAVOR, events=(*FLAVOR.events, RestoredBy)),
        "actor of RestoredBy may be None: give it the default None",
    ),
    "a default of a command": (
        verbs(FLAVOR, "restore", command=RestoreBy),
        "reason of RestoreBy may be None: give it the default None",
    ),
    "users": (verbs(TAG, "delete", command=CreateFlavor), "CreateFlavor has `two_steps`, and no field `users`"),
}


@pytest.mark.parametrize("part", FORGOTTEN)
def test_a_kind_of_which_a_part_is_forgotten_does_not_start(part: str) -> None:
    kinds, says = FORGOTTEN[part]
    assert [fault for fault in faults(kinds) if fault.startswith(says)], list(faults(kinds))
    assert not list(faults(KINDS))


#: The first event of a resource of each kind that others name.
DONE: dict[str, Any] = {"at": at(0), "operation": uid(1), "fingerprint": "f"}
MADE: dict[str, Event] = {
    "flavor": FlavorCreated(**DONE, flavor="x", name="x", size=Spec(vcpus=1, memory_mib=64, disk_gib=1)),
    "image": ImageRegistered(**DONE, deadline=at(9), image="x", name="x", source="/x"),
    "project": ProjectCreated(**DONE, project="x", name="x"),
    "tag": TagCreated(**DONE, tag="x", name="x"),
    "user": UserCreated(**DONE, user="x", name="x"),
    "service_account": ServiceAccountCreated(**DONE, service_account="x", name="x"),
}
#: Each pair of kinds of which the second one has a field that names the first one; and a kind that does not exist yet.
COMMANDS: list[tuple[str, type[Command]]] = [
    (kind.name, verb.command) for kind in KINDS.values() for verb in kind.verbs
]
NAMED = sorted(
    {*((of, by) for by, command in COMMANDS for _, of in names_in(command)), *((of, "volume") for of in MADE)}
)


@pytest.mark.parametrize(("of", "by"), NAMED, ids=[f"{of}-{by}" for of, by in NAMED])
def test_what_another_resource_names_is_not_deleted(of: str, by: str) -> None:
    """Whatever the kind of the other one: in both steps, and when a project of the same id is created again."""
    kind, users = KINDS[of], Users(ids={by: ("y",)})
    made = kind.evolve(None, MADE[of])
    delete = next(verb.command for verb in kind.verbs if verb.two_steps)
    asked = {of: "x", **DONE, "operation": uid(2)}
    with pytest.raises(Rejected, match=r"1|y"):
        kind.decide(made, delete(**asked, users=users))
    [begun] = kind.decide(made, delete(**asked))
    closing = kind.evolve(made, begun)
    [given_up] = kind.decide(closing, FinishDeletion(id="x", at=at(3), users=users))
    assert type(given_up).__name__.endswith("DeletionGivenUp")
    if of == "project":
        with pytest.raises(Rejected, match="earlier project x"):
            kind.decide(None, CreateProject(**asked, name="x", users=users))


@pytest.mark.parametrize("part", ["permission", "fulfilled_by", "accepted_by", "summary", "effect", "command"])
def test_a_verb_says_all_of_it(part: str) -> None:
    said = {each.name: getattr(FLAVOR.verbs[0], each.name) for each in fields(Verb) if each.name != part}
    with pytest.raises(TypeError, match=f"'{part}'"):
        Verb(**said)


def values(package: Any, *types: type[Any]) -> list[Any]:
    """The values of these types that stand in the files of a room, each once."""
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    found = [value for name in names for value in vars(importlib.import_module(name)).values()]
    return list({id(value): value for value in found if isinstance(value, types)}.values())


def test_each_file_of_a_kind_or_a_verb_or_a_read_model_is_in_its_list() -> None:
    assert {kind.name for kind in values(domain, Kind)} == set(KINDS)
    assert {verb.name for verb in values(domain, VmVerb)} == {verb.name for verb in VERBS}
    assert {table.kind for table in values(projections, Aggregates)} == set(TABLES) == set(KINDS)
    models = {model.name for model in (*MODELS, *PAST_MODELS)}
    of_kinds = {name for table in TABLES.values() for name in (table.table, f"past_{table.table}")}
    assert {model.name for model in values(projections, ReadModel)} | of_kinds == models


def test_a_file_of_verbs_that_has_none_does_not_start() -> None:
    with pytest.raises(TypeError, match="state has no VERBS"):
        in_file("domain.vm.state")


def test_the_order_of_verbs_is_that_of_their_effects_and_names() -> None:
    """Descriptions have it, such as openapi.json; so it does not depend on the order of files."""
    assert [verb.name for verb in VERBS[:3]] == ["create", "change", "delete"]
    acts = [verb.name for verb in VERBS if verb.effect is Effect.ACTS]
    assert acts == sorted(acts) and VERBS[3].name == acts[0] == "abandon"


def test_each_verb_that_names_an_image_looks_at_the_node_of_the_vm() -> None:
    commands: dict[str, type[Command]] = {verb.name: verb.command for verb in VERBS if verb is not CREATE}
    naming = {name for name, command in commands.items() if ("image", "image") in names_in(command)}
    assert "rebuild" in naming
    for verb in VERBS:
        related = lookup_of(verb).related
        looks = [getattr(each, "__self__", each) for each in related].count(NamedImages(verb.event, ("image",)))
        assert (looks, check_features in related) == ((2, True) if verb.name in naming else (0, verb.name == "change"))


def test_a_verb_whose_event_lacks_the_image_that_its_command_names_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("domain.vm.verb._BY_NAME", {})
    with pytest.raises(TypeError, match="RebuildVm names an image in image, VmStartRequested does not"):
        lookup_of(replace(REBUILD, event=VmStartRequested))  # type: ignore[arg-type]


def test_a_kind_without_a_table_does_not_start() -> None:
    with pytest.raises(TypeError, match="no table holds the resources of kind flavor"):
        check({kind: table for kind, table in TABLES.items() if kind != "flavor"}, MODELS)
    with pytest.raises(TypeError, match="two read models are called events"):
        check(TABLES, (*MODELS, next(model for model in MODELS if model.name == "events")))


@pytest.mark.parametrize(("verb", "fields"), [(CREATE, "notices"), (FORGET, "node_lost, folder")])
def test_a_command_whose_fields_nothing_fills_in_does_not_start(verb: Verb[Any], fields: str) -> None:
    with pytest.raises(TypeError, match=f"nothing in LOOKUPS fills in {fields} of"):
        Route(KINDS["vm"], verb, Lookup())


def test_nobody_asks_for_what_handlers_fill_in() -> None:
    """A body that is made of a command has no such field, even where its line among the bodies is forgotten."""
    assert not {"node_lost", "folder", "operation"} & set(bodies.of(FORGET.command, "vm", FORGET.effect).model_fields)
    assert "notices" not in bodies.of(CreateVm, "vm", CREATE.effect).model_fields


def test_each_change_says_something() -> None:
    """The bodies that are made of commands are refused as those that are written."""
    changes = {f"{action.kind}.{action.verb}": action.body for action in ACTIONS if action.method == "PATCH"}
    assert issubclass(changes["flavor.change"], bodies.Change) and not changes["flavor.change"].OPTIONAL
    with pytest.raises(ValueError, match="give at least one of name, labels, description"):
        changes["flavor.change"].model_validate({})
    assert changes["flavor.change"].model_validate({"name": "n"}).args() == {"name": "n"}
