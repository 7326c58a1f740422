# SPDX-License-Identifier: Apache-2.0
"""Drivers of MariaDB: their waits overlap, as the server's process list sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pymysql
import pytest
from conftest import Matrix

N = 8

APP = """
TO = {"host": "127.0.0.1", "port": int(os.environ["PORT"]), "user": "root", "database": "test"}
SQL = "SELECT id, name FROM item"

def judged(rows, n):
    assert [tuple(row) for row in rows] == [(i, f"item {i}" * 20) for i in range(2000)]
    return n

def pymysql_own(n):
    import pymysql
    with contextlib.closing(pymysql.connect(**TO)) as connection:
        with connection.cursor() as cursor:
            cursor.execute(SQL)
            return judged(cursor.fetchall(), n)

def pymysql_unbuffered(n):
    import pymysql, pymysql.cursors
    with contextlib.closing(pymysql.connect(**TO)) as connection:
        with connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute(SQL)
            return judged(list(cursor), n)

def mysqlclient(n):
    import MySQLdb
    with contextlib.closing(MySQLdb.connect(**TO)) as connection:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(SQL)
            return judged(cursor.fetchall(), n)

def mysqlclient_unbuffered(n):
    import MySQLdb, MySQLdb.cursors
    with contextlib.closing(MySQLdb.connect(**TO)) as connection:
        with contextlib.closing(connection.cursor(MySQLdb.cursors.SSCursor)) as cursor:
            cursor.execute(SQL)
            return judged(list(cursor), n)

def by_engine(n, driver):
    from sqlalchemy import create_engine, text
    engine = once(driver, lambda: create_engine(
        f"mysql+{driver}://root@127.0.0.1:{TO['port']}/test", pool_size=24))
    with engine.connect() as connection:
        return judged(connection.execute(text(SQL)).fetchall(), n)

def sqlalchemy_pymysql(n):
    return by_engine(n, "pymysql")

def sqlalchemy_mysqlclient(n):
    return by_engine(n, "mysqldb")
"""

CELLS = [
    "pymysql_own",
    "pymysql_unbuffered",
    "mysqlclient",
    "mysqlclient_unbuffered",
    "sqlalchemy_pymysql",
    "sqlalchemy_mysqlclient",
]


class Gate:
    """Holds the table locked, and counts those who wait for it."""

    def __init__(self, to: dict[str, object]) -> None:
        self.connection = pymysql.connect(**to, autocommit=True)
        self.watcher = pymysql.connect(**to, autocommit=True)
        with self.connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS item (id int PRIMARY KEY, name text)")
            cursor.execute(
                "REPLACE INTO item SELECT seq, repeat(concat('item ', seq), 20) FROM seq_0_to_1999"
            )

    def close(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("LOCK TABLES item WRITE")

    def open(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("UNLOCK TABLES")

    def waiting(self) -> int:
        with self.watcher.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM information_schema.processlist"
                " WHERE state = 'Waiting for table metadata lock'"
            )
            return cursor.fetchone()[0]


@pytest.fixture
def gate(mariadb: dict[str, object]) -> Iterator[Gate]:
    made = Gate(mariadb)
    yield made
    made.connection.close()
    made.watcher.close()


@pytest.mark.parametrize("cell", CELLS)
def test_mariadb(
    matrix: Callable[..., Matrix], mariadb: dict[str, object], gate: Gate, cell: str
) -> None:
    served = matrix(APP, {"PORT": str(mariadb["port"])})
    served.server.allow_fds("socket", N if cell.startswith("sqlalchemy") else 0)
    for _ in range(2):
        gate.close()
        assert served.meet(cell, N, gate.waiting, gate.open) == list(range(N))
