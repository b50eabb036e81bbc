"""What the plugin exports, each function with a guard round it.

An exception that the plugin does not catch would end in a trap that says nothing. Here it becomes the error that
the call answers: its type and the way to where it was raised, but never its message, which may hold a row's value.
"""

import app
import wit_world
from componentize_py_types import Err

# Functions that are told, the innermost first; the rest of a recursion says nothing more.
PLACES_MAX = 6


class WitWorld:
    """The exports of the world that the plugin is of; `tailwater plugin build` has them called."""


def guarded(name):
    """The plugin's function of that name, for one call."""

    def call(_, *given):
        try:
            return getattr(app.WitWorld(), name)(*given)
        except BaseException as error:
            if isinstance(error, Err) and isinstance(error.value, str):
                raise
            raise Err(f"it raised {type(error).__qualname__} in {way(error) or f'the call of `{name}`'}") from None

    return call


def way(error):
    """Function, file and line of what was running, the guard aside."""
    places = []
    step = error.__traceback__.tb_next
    while step:
        code = step.tb_frame.f_code
        # `/0/app.py`: each directory with modules has another name inside the component.
        file = code.co_filename.split("/", 2)[-1]
        places.append(f"{code.co_qualname} ({file}:{step.tb_lineno})")
        step = step.tb_next
    return " < ".join(places[: -PLACES_MAX - 1 : -1])


for name, function in list(vars(wit_world.WitWorld).items()):
    if getattr(function, "__isabstractmethod__", False):
        setattr(WitWorld, name, guarded(name))
