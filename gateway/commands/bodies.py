"""The bodies of commands: what each may say, and what the handlers are told of it.

Strict: a number is a number, a field that does not exist is refused by its name.
"""

import re
from typing import Any, ClassVar, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from domain.base import Command, Hostname, Labels, Reason, Remark, Slug, Tags, Title
from domain.contract import Args, BaseUrl, Fetch, Firmware, SeedMedium, Watchdog
from domain.image import Description, Word
from domain.image_source import Source
from domain.references import looked_up_in
from domain.spellings import GivenArchitecture, GivenSha256, GivenSha512, GivenUuid
from domain.verb import Effect
from domain.vm import DiskGib, MemoryMib, RestartPolicy, Spec, Vcpus
from gateway.commands.fields import Policy, Seconds, SshKeys, UserData, UserDataBase64, WatchdogAction

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def either(body: "B") -> "B":
    """The body, when it gives user-data in one way at most. Raises ValueError."""
    if getattr(body, "user_data", None) and getattr(body, "user_data_base64", None):
        raise ValueError("give either user_data or user_data_base64, not both")
    return body


class Body(BaseModel):
    """What a command's body may say: nothing, unless a subclass says otherwise."""

    model_config = STRICT

    OPTIONAL: ClassVar[bool] = False
    """Whether a call may leave it out."""

    def args(self) -> Args:
        """The arguments of the command, without the id of its resource."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"id"})


def says_user_data_once(schema: dict[str, Any]) -> None:
    """Add to a body's schema that user-data is given in one way at most."""
    ways = ("user_data", "user_data_base64")
    schema["not"] = {"required": list(ways), "properties": {way: {"type": "string", "minLength": 1} for way in ways}}


B = TypeVar("B", bound=BaseModel)


def something(body: B) -> B:
    """The body, when it says anything at all. Raises ValueError."""
    fields = type(body).model_fields
    if all(getattr(body, field) is None for field in fields):
        raise ValueError(f"give at least one of {', '.join(fields)}")
    return body


def says_something(schema: dict[str, Any]) -> None:
    """Add to a body's schema that one field at least is given, and is not null."""
    schema["anyOf"] = [
        {"required": [field], "properties": {field: {"not": {"type": "null"}}}} for field in schema["properties"]
    ]


class Change(Body):
    """What is not given stays as it is; something has to be given."""

    model_config = ConfigDict(json_schema_extra=says_something)

    @model_validator(mode="after")
    def _changes(self) -> Self:
        return something(self)


def has_an_id(schema: dict[str, Any]) -> None:
    """Add to a body's schema that it has an `id`, or a name of which one can be made."""
    schema["anyOf"] = [
        {"required": ["id"], "properties": {"id": {"not": {"type": "null"}}}},
        {"properties": {"name": {"pattern": "[A-Za-z0-9]"}}},
    ]


def says_a_size(schema: dict[str, Any]) -> None:
    """Add to the body of a create that a flavor says its size, or it says all of it itself."""
    says_user_data_once(schema)
    there, sizes = {"not": {"type": "null"}}, list(Spec.model_fields)
    schema["anyOf"] = [
        {"required": sizes, "properties": {**dict.fromkeys(sizes, there), "flavor": {"type": "null"}}},
        {"required": ["flavor"], "properties": {"flavor": there, **{size: {"type": "null"} for size in sizes[:2]}}},
    ]


class CreateVm(Body):
    """Its size is that of a flavor, whose disk may be made larger; or all three sizes are given."""

    model_config = ConfigDict(json_schema_extra=says_a_size)

    flavor: Slug | None = None
    vcpus: Vcpus | None = Field(default=None, validate_default=True)
    memory_mib: MemoryMib | None = Field(default=None, validate_default=True)
    disk_gib: DiskGib | None = Field(default=None, validate_default=True)
    id: GivenUuid | None = None
    name: Hostname
    image: Slug
    region: Slug | None = None
    tags: Tags = ()
    labels: Labels = Field(default_factory=dict)
    protected: bool = False
    restart_policy: Policy = RestartPolicy.NO
    watchdog: WatchdogAction = Watchdog.DISABLED
    description: Remark | None = None
    ssh_keys: SshKeys = ()
    user_data: UserData | None = None
    user_data_base64: UserDataBase64 | None = None

    @field_validator("vcpus", "memory_mib", "disk_gib")
    @classmethod
    def _is_said_once(cls, size: int | None, info: ValidationInfo) -> int | None:
        """Without a flavor it has to be said; beside one only the disk may be."""
        if size is None and info.data.get("flavor", "unfit") is None:
            raise PydanticCustomError("missing", "Field required")
        if size is not None and info.data.get("flavor") is not None and info.field_name != "disk_gib":
            raise ValueError("is said by the flavor: leave it out, or the flavor")
        return size

    @model_validator(mode="after")
    def _either(self) -> Self:
        return either(self)

    def args(self) -> Args:
        said = super().args()
        return {"spec": {size: said.pop(size) for size in Spec.model_fields if size in said}, **said}


class Power(Body):
    """`grace_seconds` is how long the guest may take before the plug is pulled; `force` pulls it at once."""

    OPTIONAL = True

    force: bool = False
    grace_seconds: Seconds = 90


class ResizeVm(Change):
    """What is not given stays as it is. A disk only grows."""

    vcpus: Vcpus | None = None
    memory_mib: MemoryMib | None = None
    disk_gib: DiskGib | None = None


class RebuildVm(Body):
    """What is not given stays as it is."""

    OPTIONAL = True

    model_config = ConfigDict(json_schema_extra=says_user_data_once)

    image: Slug | None = None
    ssh_keys: SshKeys | None = None
    user_data: UserData | None = None
    user_data_base64: UserDataBase64 | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        return either(self)


class ForgetVm(Body):
    reason: Reason


class ChangeVm(Change):
    """What is not given stays as it is; tags and labels are replaced as a whole."""

    name: Hostname | None = None
    tags: Tags | None = None
    labels: Labels | None = None
    protected: bool | None = None
    restart_policy: Policy | None = None
    watchdog: WatchdogAction | None = None
    description: Remark | None = None


class CreateNamed(Body):
    """A project or a tag. The id defaults to the name as a slug."""

    model_config = ConfigDict(json_schema_extra=has_an_id)

    id: Slug | None = None
    name: Title

    @model_validator(mode="after")
    def _has_id(self) -> Self:
        if self.id is None and not slug(self.name):
            raise ValueError("no id can be made from this name: give one in `id`")
        return self


class CreateProject(CreateNamed):
    tags: Tags = ()
    ssh_keys: SshKeys = ()
    description: Remark | None = None


class ChangeProject(Change):
    """What is not given stays as it is; tags and keys are replaced as a whole."""

    name: Title | None = None
    tags: Tags | None = None
    ssh_keys: SshKeys | None = None
    description: Remark | None = None


class RenameTag(Body):
    name: Title


class SeedUrl(Body):
    """Where the guests of a node reach the data source, from their next start on."""

    seed_url: BaseUrl


class RegisterImage(Body):
    """`project`: the one that alone may use it; without, all may. `firmware`, where it is not given: `bios`, and for
    aarch64 `uefi`.
    """

    id: Slug
    name: Title | None = None
    source: Source
    sha256: GivenSha256 | None = None
    sha512: GivenSha512 | None = None
    distribution: Word | None = None
    release: Word | None = None
    architecture: GivenArchitecture = "x86_64"
    description: Description | None = None
    project: Slug | None = None
    firmware: Firmware | None = None
    seed: SeedMedium = SeedMedium.HTTP
    fetch: Fetch = Fetch.PLATFORM

    def args(self) -> Args:
        return {"name": self.id, **super().args()}


def slug(name: str) -> str:
    """A name as an id: lower case, hyphens for everything else. Empty when nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")


#: What the platform itself puts into a command.
OWN = {"at", "operation", "fingerprint", "created_by"}


def of(command: type[Command], kind: str, effect: Effect) -> type[Body]:
    """The body of a command that people ask for by its own fields: all but its resource's id and what is looked up."""
    given = {
        name: (field.annotation, field)
        for name, field in command.model_fields.items()
        if name not in {*OWN, kind, *looked_up_in(command)}
    }
    if not given:
        return Body
    base: type[Body] = Body
    if effect is Effect.CHANGES:
        base = Change
    elif effect is Effect.CREATES and "name" in given:
        base = CreateNamed
    fields: dict[str, Any] = given
    made = cast("type[Body]", create_model(command.__name__, __base__=base, **fields))
    made.OPTIONAL = base is not Change and not any(field.is_required() for field in made.model_fields.values())
    return made
