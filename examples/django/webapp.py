# SPDX-License-Identifier: Apache-2.0
"""A shop in Django. Each page asks a slow HTTP service, PostgreSQL and Redis, one after the other.

Ordinary blocking code, in any carrier:

pelton --http-socket :9090 --threads 1 webapp.py         one page at a time
pelton --http-socket :9090 --threads 64 webapp.py        64 at once, in threads
pelton --http-socket :9090 --async 1000 webapp.py        a thousand at once, in fibers

PRICES_URL, DATABASE_HOST, DATABASE_PORT, DATABASE_USER and REDIS_URL say where the services are.
"""

import os

import django
import redis
import requests
from django.conf import settings

PRICES_URL = os.environ.get("PRICES_URL", "http://127.0.0.1:8001")

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ.get("DATABASE_HOST", "127.0.0.1"),
            "PORT": os.environ.get("DATABASE_PORT", "5432"),
            "USER": os.environ.get("DATABASE_USER", "shop"),
            "NAME": os.environ.get("DATABASE_NAME", "shop"),
            # More requests than connections: who finds none left waits for one, and only he does.
            "OPTIONS": {"pool": {"min_size": 1, "max_size": 20, "timeout": 60}},
        }
    },
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import models  # noqa: E402
from django.db.models import F, Func  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.shortcuts import get_object_or_404  # noqa: E402
from django.urls import path  # noqa: E402

counters = redis.Redis(
    connection_pool=redis.BlockingConnectionPool.from_url(
        os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), max_connections=20, timeout=60
    )
)
prices = requests.Session()
prices.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=100))


class Item(models.Model):
    name = models.TextField()

    class Meta:
        app_label = "shop"


class SlowName(Func):
    """The name, a hundredth of a second later."""

    template = "(SELECT %(expressions)s FROM pg_sleep(0.01))"
    output_field = models.TextField()


def item(request, number):
    price = prices.get(f"{PRICES_URL}/{number}", timeout=60).json()["price"]
    found = get_object_or_404(Item.objects.annotate(slow_name=SlowName(F("name"))), id=number)
    visit = counters.incr("visits")
    return JsonResponse({"number": number, "name": found.slow_name, "price": price, "visit": visit})


urlpatterns = [path("item/<int:number>", item)]
application = get_wsgi_application()
