# SPDX-License-Identifier: Apache-2.0
"""A shop in Flask. Each page asks a slow HTTP service, PostgreSQL and Redis, one after the other.

Ordinary blocking code, in any carrier:

pelton --http-socket :9090 --threads 1 webapp.py         one page at a time
pelton --http-socket :9090 --threads 64 webapp.py        64 at once, in threads
pelton --http-socket :9090 --async 1000 webapp.py        a thousand at once, in fibers

PRICES_URL, DATABASE_URL and REDIS_URL say where the services are.
"""

import os

import redis
import requests
from flask import Flask, jsonify
from sqlalchemy import create_engine, text

app = Flask(__name__)

PRICES_URL = os.environ.get("PRICES_URL", "http://127.0.0.1:8001")
# More requests than connections: who finds none left waits for one, and only he does.
engine = create_engine(
    os.environ.get("DATABASE_URL", "postgresql+psycopg2://127.0.0.1/shop"),
    pool_size=20,
    max_overflow=0,
    pool_timeout=60,
)
counters = redis.Redis(
    connection_pool=redis.BlockingConnectionPool.from_url(
        os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), max_connections=20, timeout=60
    )
)
prices = requests.Session()
prices.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=100))


@app.get("/item/<int:number>")
def item(number):
    price = prices.get(f"{PRICES_URL}/{number}", timeout=60).json()["price"]
    with engine.connect() as connection:
        query = text("SELECT name FROM shop_item, pg_sleep(0.01) WHERE id = :id")
        name = connection.execute(query, {"id": number}).scalar_one()
    visit = counters.incr("visits")
    return jsonify(number=number, name=name, price=price, visit=visit)
