"""Tags group projects and VMs. `named.py` shows the life of a tag."""

from typing import Annotated, assert_never

from domain.access import TAG_MANAGE, TAG_READ
from domain.base import Category, Event, Rejected, Slug, Title, being_deleted, replace
from domain.kind import Id, Kind, Scope
from domain.named import (
    DeletionBegun,
    DeletionGivenUp,
    Named,
    OperationCommand,
    OperationDone,
    closing_after,
    deletion_fields,
    is_repeat,
    operation_fields,
    operations_after,
)
from domain.references import LOOKED_UP, FinishDeletion, Users
from domain.verb import ON_ACCEPTANCE, Effect, Verb

Tag = Named


class TagCommand(OperationCommand):
    tag: Slug


class CreateTag(TagCommand):
    VERB = "create"
    name: Title


class RenameTag(TagCommand):
    VERB = "rename"
    name: Title


class DeleteTag(TagCommand):
    VERB = "delete"
    users: Annotated[Users, LOOKED_UP] = Users()


TagCommands = CreateTag | RenameTag | DeleteTag | FinishDeletion


class TagCreated(OperationDone):
    TOPIC = "nebula.tag.TagCreated"
    VERB = CreateTag.VERB
    tag: str
    name: str


class TagRenamed(OperationDone):
    TOPIC = "nebula.tag.TagRenamed"
    VERB = RenameTag.VERB
    name: str


class TagDeleted(OperationDone):
    TOPIC = "nebula.tag.TagDeleted"
    VERB = DeleteTag.VERB


class TagDeletionBegun(DeletionBegun):
    TOPIC = "nebula.tag.TagDeletionBegun"


class TagDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.tag.TagDeletionGivenUp"


TagEvents = TagCreated | TagRenamed | TagDeletionBegun | TagDeletionGivenUp | TagDeleted


def usable(tag: Tag | None, id_: str, _: str = "") -> Tag:
    """The tag, if a project or VM may get it. Raises Rejected."""
    if tag is None or tag.deleted:
        raise Rejected("tag_not_found", f"there is no tag {id_}; create it first", Category.INVALID, field="tags")
    if tag.closing is not None:
        raise being_deleted("tag", id_, field="tags")
    return tag


def decide(tag: Tag | None, command: TagCommands) -> list[TagEvents]:
    """The events that follow from a command on a tag. Raises Rejected."""
    if isinstance(command, FinishDeletion):
        return finish(tag, command)
    if is_repeat("tag", tag, command):
        return []
    if isinstance(command, CreateTag):
        if tag is not None and not tag.deleted:
            raise Rejected("tag_exists", f"there is a tag {tag.id} already; choose another id", field="id")
        return [TagCreated(**operation_fields(command), tag=command.tag, name=command.name)]
    if tag is None:
        raise Rejected("tag_not_found", f"there is no tag {command.tag}", Category.NOT_FOUND, field="tag")
    if tag.deleted:
        raise Rejected("tag_deleted", f"tag {tag.id} was deleted", Category.GONE)
    match command:
        case RenameTag():
            return [TagRenamed(**operation_fields(command), name=command.name)]
        case DeleteTag():
            used = in_use(tag, command.users)
            if used is not None:
                raise used
            return [TagDeletionBegun(**deletion_fields(command))]
        case _:
            assert_never(command)


def in_use(tag: Tag, users: Users) -> Rejected | None:
    """The refusal to delete a tag that some resource has; None if none has it."""
    if not (used := users.counted()):
        return None
    return Rejected("tag_in_use", f"{used} still have tag {tag.id}; remove it from them first")


def finish(tag: Tag | None, command: FinishDeletion) -> list[TagEvents]:
    if tag is None or tag.closing is None:
        return []
    used = in_use(tag, command.users)
    if used is not None:
        return [TagDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    deletion = tag.closing
    return [TagDeleted(at=command.at, operation=deletion.operation, fingerprint=deletion.fingerprint)]


def evolve(tag: Tag | None, event: Event) -> Tag | None:
    """The state after an event. A deleted tag's id may be used again; the new tag keeps the old operations."""
    if isinstance(event, TagCreated):
        return Tag(
            id=event.tag,
            name=event.name,
            created_at=event.at,
            updated_at=event.at,
            operations=operations_after(tag, event),
        )
    if tag is None or not isinstance(event, TagEvents):
        return tag
    match event:
        case TagRenamed():
            return replace(tag, name=event.name, updated_at=event.at, operations=operations_after(tag, event))
        case TagDeleted():
            known = operations_after(tag, event)
            return replace(tag, deleted=True, closing=None, updated_at=event.at, operations=known)
        case TagDeletionBegun() | TagDeletionGivenUp():
            return replace(tag, closing=closing_after(event))
        case TagCreated():
            return tag
        case _:
            assert_never(event)


def verb(command: type[TagCommand], summary: str, effect: Effect, accepted_by: type[OperationDone]) -> Verb[TagCommand]:
    return Verb(
        name=command.VERB,
        command=command,
        summary=summary,
        effect=effect,
        permission=TAG_MANAGE,
        accepted_by=(accepted_by,),
        fulfilled_by=ON_ACCEPTANCE,
        two_steps=effect is Effect.DELETES,
    )


TAG = Kind[Tag, TagCommands](
    name="tag",
    plural="tags",
    title="tag",
    scope=Scope.CLOUD,
    id=Id.SLUG,
    readable_by=TAG_READ,
    state=Tag,
    verbs=(
        verb(CreateTag, "Create a tag", Effect.CREATES, TagCreated),
        verb(RenameTag, "Rename a tag", Effect.CHANGES, TagRenamed),
        verb(DeleteTag, "Delete a tag", Effect.DELETES, TagDeleted),
    ),
    events=(TagDeletionBegun, TagDeletionGivenUp),
    decide=decide,
    evolve=evolve,
    deleted=lambda tag: tag.deleted,
    usable=usable,
)
