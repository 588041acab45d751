"""YAML that others wrote, read as cloud-init reads it, and no more of it than a handler can bear.

Merge keys (`<<`) multiply: 64 KiB of them may stand for a gigabyte, and with older libraries a few hundred bytes for
more than any memory holds.
"""

import yaml

#: Mappings that one mapping may merge, and what all merges together may bring.
MOST_MERGED, MOST_BROUGHT = 100, 20_000
MERGE = "tag:yaml.org,2002:merge"


class TooMuch(Exception):
    """It stands for more than is looked at."""


class _Loader(yaml.SafeLoader):
    brought = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Raises TooMuch."""
        merged = [value for key, value in node.value if key.tag == MERGE]
        if sum(len(value.value) if isinstance(value, yaml.SequenceNode) else 1 for value in merged) > MOST_MERGED:
            raise TooMuch
        super().flatten_mapping(node)
        self.brought += len(node.value) if merged else 0
        if self.brought > MOST_BROUGHT:
            raise TooMuch


def load(text: str) -> object:
    """What it says. Raises TooMuch, yaml.YAMLError, and whatever a value makes the library raise."""
    return yaml.load(text, _Loader)  # noqa: S506
