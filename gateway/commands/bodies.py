"""The bodies of commands, and their conversion to the arguments of commands.

They are strict: a number must be a JSON number, and an unknown field is refused by its name.
"""

import re
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from domain.access import Role
from domain.base import Command, Hostname, Labels, Reason, Remark, Slug, Tags, Title
from domain.contract import Args, BaseUrl, Fetch, Firmware, SeedMedium, Watchdog
from domain.image import Description, Word
from domain.image_source import Source
from domain.principal import AccountPrincipal
from domain.references import looked_up_in
from domain.spellings import GivenArchitecture, GivenSha256, GivenSha512, GivenUuid
from domain.verb import Effect
from domain.vm import DiskGib, MemoryMib, RestartPolicy, Spec, Vcpus
from gateway.commands.fields import Policy, Seconds, SshKeys, UserData, UserDataBase64, WatchdogAction

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def either(body: "B") -> "B":
    """The body, if it has user-data in at most one of the two fields. Raises ValueError."""
    if getattr(body, "user_data", None) and getattr(body, "user_data_base64", None):
        raise ValueError("give either user_data or user_data_base64, not both")
    return body


class Body(BaseModel):
    """The body of a command, without fields."""

    model_config = STRICT

    OPTIONAL: ClassVar[bool] = False
    """Whether a call may omit the body."""

    def args(self) -> Args:
        """The arguments of the command, without the id of its resource."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"id"})


def user_data_once(schema: dict[str, Any]) -> None:
    """Add to a body's schema: user-data is in at most one of the two fields."""
    ways = ("user_data", "user_data_base64")
    schema["not"] = {"required": list(ways), "properties": {way: {"type": "string", "minLength": 1} for way in ways}}


B = TypeVar("B", bound=BaseModel)


def not_empty(body: B) -> B:
    """The body, if it has any field. Raises ValueError."""
    fields = type(body).model_fields
    if all(getattr(body, field) is None for field in fields):
        raise ValueError(f"give at least one of {', '.join(fields)}")
    return body


def at_least_one_field(schema: dict[str, Any]) -> None:
    """Add to a body's schema: at least one field is given and not null."""
    schema["anyOf"] = [
        {"required": [field], "properties": {field: {"not": {"type": "null"}}}} for field in schema["properties"]
    ]


class Change(Body):
    """A change. Fields that are not given stay unchanged; at least one must be given."""

    model_config = ConfigDict(json_schema_extra=at_least_one_field)

    @model_validator(mode="after")
    def _changes(self) -> Self:
        return not_empty(self)


def has_an_id(schema: dict[str, Any]) -> None:
    """Add to a body's schema: it has an `id`, or a name from which an id can be made."""
    schema["anyOf"] = [
        {"required": ["id"], "properties": {"id": {"not": {"type": "null"}}}},
        {"properties": {"name": {"pattern": "[A-Za-z0-9]"}}},
    ]


def has_a_size(schema: dict[str, Any]) -> None:
    """Add to the schema of a create: it has a flavor, or all three sizes."""
    user_data_once(schema)
    given, sizes = {"not": {"type": "null"}}, list(SIZES)
    schema["anyOf"] = [
        {"required": sizes, "properties": {**dict.fromkeys(sizes, given), "flavor": {"type": "null"}}},
        {"required": ["flavor"], "properties": {"flavor": given, **{size: {"type": "null"} for size in sizes[:2]}}},
    ]


#: The fields of a size. (Pydantic makes `model_fields` at each access.)
SIZES = tuple(Spec.model_fields)


class CreateVm(Body):
    """Its size is that of a flavor (the disk may be larger), or all three sizes are given."""

    model_config = ConfigDict(json_schema_extra=has_a_size)

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
    def _is_given_once(cls, size: int | None, info: ValidationInfo) -> int | None:
        """Without a flavor, each size is required. With a flavor, only the disk may be given."""
        if size is None and info.data.get("flavor", "unfit") is None:
            raise PydanticCustomError("missing", "Field required")
        if size is not None and info.data.get("flavor") is not None and info.field_name != "disk_gib":
            raise ValueError("comes from the flavor: leave out this field, or leave out the flavor")
        return size

    @model_validator(mode="after")
    def _either(self) -> Self:
        return either(self)

    def args(self) -> Args:
        args = super().args()
        return {"spec": {size: args.pop(size) for size in SIZES if size in args}, **args}


class Power(Body):
    """`grace_seconds`: seconds for a shutdown before the guest is powered off. `force`: power it off immediately."""

    OPTIONAL = True

    force: bool = False
    grace_seconds: Seconds = 90


class ResizeVm(Change):
    """Sizes that are not given stay unchanged. A disk only grows."""

    vcpus: Vcpus | None = None
    memory_mib: MemoryMib | None = None
    disk_gib: DiskGib | None = None


class RebuildVm(Body):
    """Fields that are not given stay unchanged."""

    OPTIONAL = True

    model_config = ConfigDict(json_schema_extra=user_data_once)

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
    """Fields that are not given stay unchanged. Tags replace all tags, labels replace all labels."""

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
            raise ValueError("no id can be made from this name: give an `id`")
        return self


class CreateProject(CreateNamed):
    tags: Tags = ()
    ssh_keys: SshKeys = ()
    description: Remark | None = None


class ChangeProject(Change):
    """Fields that are not given stay unchanged. Tags replace all tags, keys replace all keys."""

    name: Title | None = None
    tags: Tags | None = None
    ssh_keys: SshKeys | None = None
    description: Remark | None = None


class RenameTag(Body):
    name: Title


class IssueToken(Body):
    """A token of the caller, or of `principal`. Its secret is in the answer, once. `expires_at` is 90 days away unless
    given, and at most a year. `project`, `role` and `read_only` limit what it gives.
    """

    name: Title
    principal: AccountPrincipal | None = None
    expires_at: Annotated[AwareDatetime, Field(strict=False)] | None = None
    project: Slug | None = None
    role: Annotated[Role, Field(strict=False)] | None = None
    read_only: bool = False


class SeedUrl(Body):
    """The URL at which the guests of a node reach the data source, from their next start on."""

    seed_url: BaseUrl


class RegisterImage(Body):
    """`project`: the only project that may use the image; without it, all projects may. The default of `firmware` is
    `bios`, and for aarch64 `uefi`.
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
    """An id from a name: lower case, with hyphens for all other characters. Empty if nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")


#: The fields of a command that the platform itself sets.
OWN = {"at", "operation", "fingerprint", "created_by"}


def of(command: type[Command], kind: str, effect: Effect) -> type[Body]:
    """The body of a command, with the command's own fields, except its resource's id and fields that are looked up."""
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
    model = cast("type[Body]", create_model(command.__name__, __base__=base, **fields))
    model.OPTIONAL = base is not Change and not any(field.is_required() for field in model.model_fields.values())
    return model
