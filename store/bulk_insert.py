"""Statements that are executed for every served request: their SQL is made once.

SQLAlchemy looks a statement up among the compiled ones at each execution, which costs more than the
database takes for a row. Types bind their values as everywhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert


class Prepared(NamedTuple):
    """A statement in the words of one kind of database."""

    sql: str
    columns: Sequence[str]
    """Whose values it takes, in this order."""
    binders: Sequence[Callable[[Any], Any]]
    """What makes each value one of the driver's."""
    is_positional: bool

    def bind(self, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a tuple or a mapping
        """The row as the driver takes it."""
        values = [
            bind(row[column]) for column, bind in zip(self.columns, self.binders, strict=True)
        ]
        return tuple(values) if self.is_positional else dict(zip(self.columns, values, strict=True))


def insert_all(
    connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows, each of which has a value for every column of the table.

    Args:
        connection: In a write transaction.
        statement: Made once, and not for the call.
        rows: None is fine.

    Raises:
        KeyError: A column has no value.
    """
    if rows:
        prepared = _prepared(statement, connection.dialect)
        connection.exec_driver_sql(prepared.sql, [prepared.bind(row) for row in rows])


@lru_cache(maxsize=64)
def _prepared(statement: Insert, dialect: Dialect) -> Prepared:
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    columns = compiled.positiontup if compiled.positional else tuple(compiled.binds)
    assert columns is not None
    types = [compiled.binds[column].type.dialect_impl(dialect) for column in columns]
    binders = [kind.bind_processor(dialect) or _as_it_is for kind in types]
    return Prepared(compiled.string, columns, binders, compiled.positional)


def _as_it_is(value: Any) -> Any:  # noqa: ANN401 - any value
    return value
