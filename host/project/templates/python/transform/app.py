"""Takes the blanks off both ends of text columns."""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import Edit, Form, Interest, Patch, Values_Strings, Want

# Every call finds a new `WitWorld`, so what `init` learns lives in the module. The columns to trim;
# what a table does not have is passed over.
columns = ["name"]


class WitWorld(wit_world.WitWorld):
    """The exports of the world `transform`."""

    def init(self, config):
        """Reads the plugin's `config`."""
        global columns
        settings = json.loads(config)
        columns = settings.pop("columns", columns)
        if settings:
            raise Err(f"config: unknown field `{next(iter(settings))}`, expected `columns`")
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise Err("config: `columns` is a list of column names")

    def subscribe(self, table):
        """Which columns it wants to see of a table; none: it never sees a row of it."""
        present = [column.name for column in table.columns]
        wanted = [Want(name, False, Form.STRINGS) for name in columns if name in present]
        return Interest(wanted, False, False, False) if wanted else None

    def process(self, batch):
        """What changes in a batch."""
        edits = []
        for index, column in enumerate(batch.columns):
            trimmed = [text and text.strip(" ") for text in column.values.value]
            edits.append(Edit(index, None, Values_Strings(trimmed)))
        return Patch([], edits, [])
