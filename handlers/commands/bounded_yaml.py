"""Loads YAML from callers as cloud-init does, with a limit on the memory that it needs.

Merge keys (`<<`) multiply the data: 64 KiB of YAML may become a gigabyte, with older libraries much more.
"""

import yaml

#: Maximum number of mappings that one mapping may merge, and of keys that all merges together may add.
MOST_MERGED, MOST_ADDED = 100, 20_000
MERGE = "tag:yaml.org,2002:merge"


class TooMuch(Exception):
    """The YAML has more merge keys than the limits allow."""


class _Loader(yaml.SafeLoader):
    added = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Raises TooMuch."""
        merged = [value for key, value in node.value if key.tag == MERGE]
        if sum(len(value.value) if isinstance(value, yaml.SequenceNode) else 1 for value in merged) > MOST_MERGED:
            raise TooMuch
        super().flatten_mapping(node)
        self.added += len(node.value) if merged else 0
        if self.added > MOST_ADDED:
            raise TooMuch


def load(text: str) -> object:
    """The loaded value. Raises TooMuch, yaml.YAMLError, and any exception that the library raises for a value."""
    return yaml.load(text, _Loader)  # noqa: S506
