"""How Postgres stores the columns of a table (inside of the row, compressed, or outside), and what it knows of them.

Postgres moves long values out of rows with more than 2,000 bytes, the ids too if that is not enough. Each comparison
with a value outside of its row is a look-up in another table.
"""

from collections.abc import Iterable


def inside(table: str, columns: Iterable[str], compressed: Iterable[str] = ()) -> str:
    """The statement that keeps these columns inside of the row. `compressed`: those that are compressed first, by lz4.

    Values of other columns are compressed only if the row is longer than the `toast_tuple_target` of the table after
    that. A row that does not fit into a page (8 KB) even so has values outside.
    """
    actions = [f"ALTER COLUMN {name} SET STORAGE MAIN" for name in columns]
    actions += [f"ALTER COLUMN {name} SET COMPRESSION lz4" for name in compressed]
    return f"ALTER TABLE {table} {', '.join(actions)};"


def unsearched(table: str, *columns: str) -> str:
    """The statement by which Postgres gathers no statistics of columns that no query searches. To sort the long texts
    of a sample takes a second of processor time, again and again while a table grows.
    """
    none = ", ".join(f"ALTER COLUMN {column} SET STATISTICS 0" for column in columns)
    return f"ALTER TABLE {table} {none};"
