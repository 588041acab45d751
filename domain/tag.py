"""Tags group projects and VMs. They are created, renamed and deleted; their life is in `named.py`."""

from typing import assert_never

from pydantic import Field

from domain.base import Command, Event, Rejected, Slug, Title, being_deleted
from domain.named import (
    Asked,
    DeletionBegun,
    DeletionGivenUp,
    Done,
    Named,
    asked_before,
    begun,
    changed,
    closing,
    created,
    stamp,
)

Tag = Named


class TagCommand(Asked):
    tag: Slug


class CreateTag(TagCommand):
    VERB = "create"
    name: Title


class RenameTag(TagCommand):
    VERB = "rename"
    name: Title


class DeleteTag(TagCommand):
    VERB = "delete"
    vms: int = Field(default=0, description="VMs that carry it")
    projects: int = Field(default=0, description="projects that carry it")


class FinishTagDeletion(Command):
    """Who carried the tag at the position where its deletion began."""

    tag: Slug
    vms: int = 0
    projects: int = 0


TagCommands = CreateTag | RenameTag | DeleteTag | FinishTagDeletion


class TagCreated(Done):
    TOPIC = "nebula.tag.TagCreated"
    VERB = CreateTag.VERB
    tag: str
    name: str


class TagRenamed(Done):
    TOPIC = "nebula.tag.TagRenamed"
    VERB = RenameTag.VERB
    name: str


class TagDeleted(Done):
    TOPIC = "nebula.tag.TagDeleted"
    VERB = DeleteTag.VERB


class TagDeletionBegun(DeletionBegun):
    TOPIC = "nebula.tag.TagDeletionBegun"


class TagDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.tag.TagDeletionGivenUp"


TagEvents = TagCreated | TagRenamed | TagDeletionBegun | TagDeletionGivenUp | TagDeleted
#: What is done as soon as it is accepted.
DONE: tuple[type[Done], ...] = (TagCreated, TagRenamed, TagDeleted)


def usable(tag: Tag | None, id_: str) -> Tag:
    """The tag, when something new may carry it. Raises Rejected."""
    if tag is None or tag.deleted:
        raise Rejected("tag_not_found", f"there is no tag {id_}; create it first", status=422, field="tags")
    if tag.closing is not None:
        raise being_deleted("tag", id_, field="tags")
    return tag


def decide(tag: Tag | None, command: TagCommands) -> list[TagEvents]:
    """What follows from a command on a tag."""
    if isinstance(command, FinishTagDeletion):
        return finish(tag, command)
    if asked_before("tag", tag, command):
        return []
    if isinstance(command, CreateTag):
        if tag is not None and not tag.deleted:
            raise Rejected("tag_exists", f"there is a tag {tag.id} already", field="id")
        return [TagCreated(**stamp(command), tag=command.tag, name=command.name)]
    if tag is None:
        raise Rejected("tag_not_found", f"there is no tag {command.tag}", status=404, field="tag")
    if tag.deleted:
        raise Rejected("tag_deleted", f"tag {tag.id} was deleted", status=410)
    match command:
        case RenameTag():
            return [TagRenamed(**stamp(command), name=command.name)]
        case DeleteTag():
            used = in_use(tag, command)
            if used is not None:
                raise used
            return [TagDeletionBegun(**begun(command))]
        case _:
            assert_never(command)


def in_use(tag: Tag, command: DeleteTag | FinishTagDeletion) -> Rejected | None:
    """Why a tag cannot be deleted, when somebody carries it."""
    if not command.vms and not command.projects:
        return None
    detail = f"{command.vms} VMs and {command.projects} projects still carry tag {tag.id}; untag them first"
    return Rejected("tag_in_use", detail)


def finish(tag: Tag | None, command: FinishTagDeletion) -> list[TagEvents]:
    if tag is None or tag.closing is None:
        return []
    used = in_use(tag, command)
    if used is not None:
        return [TagDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    asked = tag.closing
    return [TagDeleted(at=command.at, operation=asked.operation, fingerprint=asked.fingerprint)]


def evolve(tag: Tag | None, event: Event) -> Tag | None:
    """The state after an event. A deleted id may be created anew."""
    match event:
        case DeletionBegun() | DeletionGivenUp():
            return closing(tag, event)
        case TagCreated():
            return created(tag, event, event.tag, event.name)
        case TagRenamed() if tag is not None:
            return changed(tag, event, name=event.name)
        case TagDeleted() if tag is not None:
            return changed(tag, event, deleted=True, closing=None)
        case _:
            return tag
