"""Counts in its state how often each row was changed and writes the count into the row."""

import wit_world
from wit_world.imports import state
from wit_world.imports.types import Edit, Form, Interest, Patch, Values_Strings, Want


class WitWorld(wit_world.WitWorld):
    """The exports of the world `transform-with-state`."""

    def init(self, config):
        pass

    def subscribe(self, table):
        wants = [Want(name, False, Form.STRINGS) for name in ("id", "name")]
        return Interest(wants, False, False, False)

    def process(self, batch):
        counts = []
        for id in batch.columns[0].values.value:
            [before] = state.get([id])
            counts.append(str(int(before or 0) + 1))
            state.set([(id, counts[-1])])
        return Patch([], [Edit(1, None, Values_Strings(counts))], [])
