"""Raises on rows whose name says how."""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import Form, Interest, Patch, Want


class Spoiled(Exception):
    """What a row may be."""


def recurse(name):
    recurse(name)


def taste(name):
    match name:
        case "poison":
            raise Spoiled(f"it is {name}")
        case "{poison":
            json.loads(name)
        case "poisoned":
            recurse(name)
        case "refused":
            raise Err("the plugin's own sentence")
        case "error":
            raise Err(Spoiled(name))
        case "exit":
            raise SystemExit(name)


class WitWorld(wit_world.WitWorld):
    """The exports of the world `transform`."""

    def init(self, config):
        if config != "{}":
            raise Spoiled(config)

    def subscribe(self, table):
        return Interest([Want("name", False, Form.STRINGS)], False, False, False)

    def process(self, batch):
        for name in batch.columns[0].values.value:
            taste(name)
        return Patch([], [], [])
