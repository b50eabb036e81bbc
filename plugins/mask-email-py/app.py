"""Masks e-mail addresses: jane@example.com becomes j***@example.com.

The same plugin as plugins/mask-email, with nothing but what the contract generates.
"""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import Edit, Form, Interest, Patch, Values_Strings, Want


# Every call finds a new `WitWorld`, so what `init` learns lives in the module.
columns = ["email"]


def mask(address):
    """Keeps the first character and the domain; null stays null."""
    if address is None:
        return None
    at = address.rfind("@")
    local, domain = (address, "") if at < 0 else (address[:at], address[at:])
    return local[:1] + "***" + domain


class WitWorld(wit_world.WitWorld):
    """The exports of the world `transform`."""

    def init(self, config):
        global columns
        settings = json.loads(config)
        columns = settings.pop("columns", columns)
        if settings:
            raise Err(f"config: unknown field `{next(iter(settings))}`, expected `columns`")
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise Err("config: `columns` is a list of column names")

    def subscribe(self, table):
        present = [column.name for column in table.columns]
        wanted = [name for name in columns if name in present]
        if not wanted:
            return None
        # The old row is asked for too: it travels on in the envelope's `before`.
        wants = [Want(name, old, Form.STRINGS) for old in (False, True) for name in wanted]
        return Interest(wants, False, False, False)

    def process(self, batch):
        edits = []
        for index, column in enumerate(batch.columns):
            values = Values_Strings([mask(value) for value in column.values.value])
            edits.append(Edit(index, None, values))
        return Patch([], edits, [])
