"""The version of these programs: the same as in pyproject.toml. Each that others install has a higher one."""

VERSION = "0.2.0"
