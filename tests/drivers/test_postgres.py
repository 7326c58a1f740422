# SPDX-License-Identifier: Apache-2.0
"""Drivers of PostgreSQL: their waits overlap, as pg_stat_activity sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg2
import pytest
from conftest import Matrix

N = 8
LOCK = 4711

# meet(n) comes back when nobody holds the lock any more. The rows after it are more than one read.
SETUP = f"""
    DROP TABLE IF EXISTS item;
    CREATE TABLE item (id int PRIMARY KEY, name text);
    INSERT INTO item SELECT n, 'item ' || n FROM generate_series(0, 63) AS n;
    CREATE OR REPLACE FUNCTION meet(n int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({LOCK});
        RETURN n * n;
    END $$;
"""

APP = """
DSN, PORT = os.environ["DSN"], int(os.environ["PORT"])
URL = f"tester@127.0.0.1:{PORT}/postgres"
SQL = "SELECT meet(%s), n FROM generate_series(1, 20000) AS n"

def judged(rows, n):
    assert [row[0] for row in rows] == [n * n] * 20000, rows[:3]
    assert [row[1] for row in rows] == list(range(1, 20001))
    return n

def psycopg2_own(n):
    import psycopg2
    with contextlib.closing(psycopg2.connect(DSN)) as connection:
        with connection.cursor() as cursor:
            cursor.execute(SQL, (n,))
            return judged(cursor.fetchall(), n)

def psycopg2_shared(n):
    # The driver's own mutex lets one query after the other through.
    import psycopg2
    connection = once("psycopg2", lambda: psycopg2.connect(DSN))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(SQL, (n,))
        return judged(cursor.fetchall(), n)

def psycopg2_pool(n):
    from psycopg2.pool import ThreadedConnectionPool
    pool = once("pool", lambda: ThreadedConnectionPool(1, 24, DSN))
    connection = pool.getconn()
    try:
        with connection.cursor() as cursor:
            cursor.execute(SQL, (n,))
            return judged(cursor.fetchall(), n)
    finally:
        connection.rollback()
        pool.putconn(connection)

def psycopg2_error(n):
    # An error after a wait, and the connection that goes on after it.
    import psycopg2
    with contextlib.closing(psycopg2.connect(DSN)) as connection:
        with connection.cursor() as cursor:
            try:
                cursor.execute("SELECT 1 / (meet(%s) * 0)", (n,))
            except psycopg2.errors.DivisionByZero:
                connection.rollback()
            cursor.execute(SQL, (n,))
            return judged(cursor.fetchall(), n)

def psycopg3(n):
    import psycopg
    with psycopg.connect(DSN) as connection:
        return judged(connection.execute(SQL, (n,)).fetchall(), n)

def psycopg3_shared(n):
    import psycopg
    connection = once("psycopg", lambda: psycopg.connect(DSN, autocommit=True))
    return judged(connection.execute(SQL, (n,)).fetchall(), n)

def psycopg3_async(n):
    import asyncio, psycopg
    async def ask():
        async with await psycopg.AsyncConnection.connect(DSN) as connection:
            cursor = await connection.execute(SQL, (n,))
            return judged(await cursor.fetchall(), n)
    return asyncio.run(ask())

def asyncpg_run(n):
    import asyncio, asyncpg
    async def ask():
        connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user="tester",
                                           database="postgres")
        try:
            return judged(await connection.fetch(SQL.replace("%s", "$1"), n), n)
        finally:
            await connection.close()
    return asyncio.run(ask())

def engine(size):
    from sqlalchemy import create_engine
    return once(f"engine{size}", lambda: create_engine(
        "postgresql+psycopg2://" + URL, pool_size=size, max_overflow=0, pool_timeout=60))

def by_engine(n, size):
    from sqlalchemy import text
    with engine(size).connect() as connection:
        return judged(connection.execute(text(SQL.replace("%s", ":n")), {"n": n}).fetchall(), n)

def sqlalchemy_pool(n):
    return by_engine(n, 24)

def sqlalchemy_small_pool(n):
    return by_engine(n, 2)

def sqlalchemy_orm(n):
    from sqlalchemy import select, func
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
    def classes():
        class Base(DeclarativeBase):
            pass
        class Item(Base):
            __tablename__ = "item"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str]
        return Item
    Item = once("orm", classes)
    with Session(engine(24)) as session:
        item = session.scalars(select(Item).where(Item.id == func.sqrt(func.meet(n)))).one()
        assert item.name == f"item {n}"
        return item.id

def sqlalchemy_asyncio(n):
    import asyncio
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    async def ask():
        engine = create_async_engine("postgresql+asyncpg://" + URL)
        try:
            async with engine.connect() as connection:
                found = await connection.execute(text(SQL.replace("%s", "cast(:n as int)")),
                                                 {"n": n})
                return judged(found.fetchall(), n)
        finally:
            await engine.dispose()
    return asyncio.run(ask())

def django_model():
    import django
    from django.conf import settings
    settings.configure(DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": PORT,
        "USER": "tester", "NAME": "postgres"}})
    django.setup()
    from django.db import models
    class Item(models.Model):
        id = models.IntegerField(primary_key=True)
        name = models.TextField()
        class Meta:
            app_label, db_table = "shop", "item"
    return Item

def django_orm(n):
    from django.db import connection, models
    from django.db.models import F, Func, Value
    Item = once("django", django_model)
    try:
        meet = Func(Value(n), function="meet", output_field=models.IntegerField())
        [item] = Item.objects.annotate(square=meet).filter(id=n)
        assert item.square == n * n and item.name == f"item {n}"
        return item.id
    finally:
        connection.close()

def django_transaction(n):
    # One connection for each core, kept over its requests as Django's own handler would.
    from django.db import connection, transaction
    Item = once("django", django_model)
    try:
        with transaction.atomic():
            Item.objects.filter(id=n).update(name=f"new {n}")
            with connection.cursor() as cursor:
                cursor.execute(SQL, (n,))
                judged(cursor.fetchall(), n)
            assert Item.objects.get(id=n).name == f"new {n}"
            Item.objects.filter(id=n).update(name=f"item {n}")
        return n
    finally:
        connection.close()
"""

# What is asked, and how many of N the server sees at once when the driver lets not all through.
CELLS = {
    "psycopg2_own": None,
    "psycopg2_shared": 1,
    "psycopg2_pool": None,
    "psycopg2_error": None,
    "psycopg3": None,
    "psycopg3_shared": 1,
    "psycopg3_async": None,
    "asyncpg_run": None,
    "sqlalchemy_pool": None,
    "sqlalchemy_small_pool": 2,
    "sqlalchemy_orm": None,
    "sqlalchemy_asyncio": None,
    "django_orm": None,
    "django_transaction": None,
}
KEPT = {"psycopg2_shared": 1, "psycopg3_shared": 1, "sqlalchemy_small_pool": 2}
POOLS = ("psycopg2_pool", "sqlalchemy_pool", "sqlalchemy_orm")


class Gate:
    """Holds the lock that meet() asks for, and counts those who wait for it."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg2.connect(dsn, options="-c statement_timeout=30s")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()

    def close(self) -> None:
        self.cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))

    def open(self) -> None:
        self.cursor.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))

    def waiting(self) -> int:
        self.cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
        )
        return self.cursor.fetchone()[0]


@pytest.fixture
def gate(postgres: str) -> Iterator[Gate]:
    made = Gate(postgres)
    made.cursor.execute(SETUP)
    yield made
    made.connection.close()


@pytest.mark.parametrize("cell", CELLS)
def test_postgres(matrix: Callable[..., Matrix], postgres: str, gate: Gate, cell: str) -> None:
    port = postgres.split("port=")[1].split(maxsplit=1)[0]
    served = matrix(APP, {"DSN": postgres, "PORT": port})
    served.server.allow_fds("socket", KEPT.get(cell, N if cell in POOLS else 0))
    for _ in range(2):  # the second time nothing is new: imports, cores, connections in pools
        gate.close()
        answers = served.meet(cell, N, gate.waiting, gate.open, at_server=CELLS[cell])
        assert answers == list(range(N))
