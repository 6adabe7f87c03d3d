"""Bulk inserts for every served request, with SQL that is compiled once.

SQLAlchemy looks up the compiled statement at each execution, which takes longer than the database
needs to insert a row. Values are bound by their column types, as everywhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert


class Prepared(NamedTuple):
    """A statement compiled for one database dialect."""

    sql: str
    columns: Sequence[str]
    """The columns it takes values for, in order."""
    binders: Sequence[Callable[[Any], Any]]
    """Per column, the function that converts a value for the driver."""
    is_positional: bool

    def bind(self, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a tuple or a mapping
        """Return the row in the form that the driver expects."""
        values = [
            bind(row[column]) for column, bind in zip(self.columns, self.binders, strict=True)
        ]
        return tuple(values) if self.is_positional else dict(zip(self.columns, values, strict=True))


def insert_all(
    connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows that have a value for every column of the table.

    Args:
        connection: In a write transaction.
        statement: A module constant: it is the key of the cache of compiled statements.
        rows: May be empty.

    Raises:
        KeyError: A row lacks a column.
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
    binders = [kind.bind_processor(dialect) or _unchanged for kind in types]
    return Prepared(compiled.string, columns, binders, compiled.positional)


def _unchanged(value: Any) -> Any:  # noqa: ANN401 - any value
    return value
