"""The setting of the roles that a claim gives."""

from pydantic import BaseModel, ConfigDict, Field, field_validator


class OidcRoles(BaseModel):
    """A claim of the issuer's tokens, and the roles that each of its values gives: `operator`, `member@web` …"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str = Field(min_length=1, max_length=255)
    map: dict[str, tuple[str, ...]] = Field(max_length=1000)

    @field_validator("map", mode="before")
    @classmethod
    def lists(cls, given: object) -> object:
        """One role may stand without a list."""
        if not isinstance(given, dict):
            return given
        return {value: (roles,) if isinstance(roles, str) else roles for value, roles in given.items()}
