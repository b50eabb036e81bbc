"""Drops updates that leave the columns that count as they were."""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import Form, Interest, RowKeys, Values_Strings, Want

# Every call finds a new `WitWorld`, so what `init` learns lives in the module. The columns that count;
# a table that lacks one of them is passed over.
columns = ["name"]


def key(values):
    """Without a value it is not known whether anything changed: the row has no key, and stays."""
    # No text of PostgreSQL's holds a zero.
    return None if None in values else "\0".join(values)


class WitWorld(wit_world.WitWorld):
    """The exports of the world `dedup`."""

    def init(self, config):
        """Reads the plugin's `config`."""
        global columns
        settings = json.loads(config)
        columns = settings.pop("columns", columns)
        if settings:
            raise Err(f"config: unknown field `{next(iter(settings))}`, expected `columns`")
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise Err("config: `columns` is a list of column names")
        # Without a column every update would say nothing new.
        if not columns:
            raise Err("config: `columns` names one column at least")

    def subscribe(self, table):
        """Which columns it wants to see of a table; none: it never sees a row of it."""
        present = [column.name for column in table.columns]
        if not all(name in present for name in columns):
            return None
        return Interest([Want(name, False, Form.STRINGS) for name in columns], False, False, False)

    def keys(self, batch):
        """A change whose key equals the one before of its row is dropped."""
        rows = zip(*(column.values.value for column in batch.columns))
        return RowKeys(Values_Strings([key(values) for values in rows]), [])
