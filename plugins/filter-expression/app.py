"""The copy holds the rows of which an expression is true: `state in ("open", "paid") and total >= 10`.

The expression is written as in Python, of column names, values, comparisons, `and`, `or` and `not`. As in
SQL, a comparison with NULL is neither true nor false: `is None` and `is not None` ask for it. Dates and times
are compared with texts as PostgreSQL prints them, in UTC.
"""

import ast
import json
import operator
import re
from collections import defaultdict
from decimal import Decimal

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import Fault, Form, Interest, Patch, Want

COMPARISONS = {ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
               ast.Gt: operator.gt, ast.GtE: operator.ge}
NUMBERS = ("smallint", "integer", "bigint", "oid", "numeric", "real", "double precision")
DAY, CLOCK, EVER = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(\.\d{0,5}[1-9])?", "|-?infinity"
# Types of which a text stands for a value, if it is written as PostgreSQL prints one.
FORMS = {"date": DAY + EVER, "time without time zone": CLOCK, "timestamp without time zone": f"{DAY} {CLOCK}{EVER}",
         "timestamp with time zone": rf"{DAY} {CLOCK}\+00{EVER}"}
UNSENT = object()  # A value that PostgreSQL did not send, and what is not known for want of one.


def number(text):
    """Compares as PostgreSQL does, with NaN above all."""
    return (True, 0) if text == "NaN" else (False, Decimal(text))


READERS = {"character": lambda text: text.rstrip(" "), "boolean": lambda text: text == "t", "number": number}


def kind_of(type_name):
    plain = re.sub(r"\(.*?\)", "", type_name)
    return "number" if plain in NUMBERS else plain if plain in FORMS or plain in READERS else "text"


def build(node, kinds):
    """What kind of value a node has, and the function that gives it for a row; None is unknown."""
    match node:
        case ast.Name(id=name):
            return kinds[name], lambda row: row[name]
        case ast.Constant(value=bool() | str() as value):
            return "boolean" if isinstance(value, bool) else "text", lambda row: value
        case ast.Constant(value=int() | float()) | ast.UnaryOp(ast.USub(), ast.Constant(int() | float())):
            value = ast.literal_eval(node)
            # As it was written, since a float holds no more than 17 digits.
            value = number(ast.get_source_segment(where, node) if isinstance(value, float) else value)
            return "number", lambda row: value
        case ast.UnaryOp(ast.Not(), part):
            (inner,) = alike([part], kinds, "boolean")
            return "boolean", lambda row: known([inner(row)], operator.not_)
        case ast.BoolOp(op, parts):
            inner, decides = alike(parts, kinds, "boolean"), isinstance(op, ast.Or)
            return "boolean", lambda row: combine(decides, [part(row) for part in inner])
        case ast.Compare(left, [ast.Is() | ast.IsNot() as op], [ast.Constant(None)]):
            inner, wanted = build(left, kinds)[1], isinstance(op, ast.Is)
            return "boolean", lambda row: (inner(row) is None) is wanted
        case ast.Compare(left, [ast.In() | ast.NotIn() as op], [ast.Tuple(many) | ast.List(many)]):
            among = ast.BoolOp(ast.Or(), [ast.Compare(left, [ast.Eq()], [one]) for one in many])
            return build(among if isinstance(op, ast.In) else ast.UnaryOp(ast.Not(), among), kinds)
        case ast.Compare(left, [op], [right]) if type(op) in COMPARISONS:
            (left, right), holds = alike([left, right], kinds), COMPARISONS[type(op)]
            return "boolean", lambda row: known([left(row), right(row)], holds)
    raise Err(f"`{said(node)}` is no part of an expression")


def alike(nodes, kinds, kind=None):
    """The functions of nodes that must be of one kind; a literal text may be of several."""
    built = [build(node, kinds) for node in nodes]
    kind, functions = kind or next((found for found, _ in built if found and found != "text"), "text"), []
    for node, (found, function) in zip(nodes, built):
        text = getattr(node, "value", None)
        stands_for = isinstance(text, str) and kind in FORMS and re.fullmatch(FORMS[kind], text)
        if found and found != kind and not stands_for and {found, kind} != {"text", "character"}:
            raise Err(f"`{said(node)}` is {found} where {kind} is expected")
        padded = isinstance(text, str) and kind == "character"
        functions.append((lambda row, text=text.rstrip(" "): text) if padded else function)
    return functions


def said(node):
    return ast.get_source_segment(where, node)


def known(values, function):
    """What a function makes of values, if all are known."""
    gaps = [gap for gap in (UNSENT, None) if any(value is gap for value in values)]
    return gaps[0] if gaps else function(*values)


def combine(decides, truths):
    """`and` and `or`: one part may decide, whatever is not known of the others."""
    return decides if decides in truths else known(truths, lambda *_: not decides)


class WitWorld(wit_world.WitWorld):
    """The exports of the world `transform`."""

    def init(self, config):
        global where, expression, columns, tables
        settings, names, tables = json.loads(config), defaultdict(lambda: None), {}
        where = settings.pop("where", None)
        if settings or not isinstance(where, str):
            raise Err("config: `where` is the only setting, and is an expression")
        where = where.strip()
        try:
            expression = ast.parse(where, mode="eval").body
        except SyntaxError as error:
            raise Err(f"`where` is no expression: {error.msg} at character {error.offset}")
        alike([expression], names, "boolean")
        columns = list(names)

    def subscribe(self, table):
        kinds = {column.name: kind_of(column.type_name) for column in table.columns}
        missing = next((name for name in columns if name not in kinds), None)
        if missing:
            raise Err(f"{table.schema}.{table.name} has no column {missing}")
        readers = [READERS.get(kinds[name], str) for name in columns]
        tables[table.id] = readers, alike([expression], kinds, "boolean")[0]
        # With REPLICA IDENTITY FULL the old row has what the new one was not sent.
        wants = [Want(name, old, Form.STRINGS) for old in (False, True) for name in columns]
        return Interest(wants, False, False, False)

    def process(self, batch):
        readers, holds = tables[batch.table]
        new, old = batch.columns[: len(columns)], batch.columns[len(columns) :]
        values = [column_values(*each) for each in zip(readers, new, old)]
        discard, faults = [], []
        for row in range(batch.rows):
            truth = holds({name: of[row] for name, of in zip(columns, values)})
            if truth is UNSENT:
                why = "PostgreSQL did not send a large value that decides; set REPLICA IDENTITY FULL"
                faults.append(Fault(row, why, False))
            elif not truth:
                discard.append(row)
        return Patch(discard, [], faults)


def column_values(read, new, old):
    values = [None if text is None else read(text) for text in new.values.value]
    for row in new.unchanged or ():
        text = old.values.value[row]
        values[row] = UNSENT if text is None else read(text)
    return values
