"""The quota's work with airbyte-cdk: its moving window behind its session. Settings come as PEER_* in the environment.

The budget learns of a 429 from the session; who was refused comes again after airbyte-cdk's default back-off.
"""

import os
import random
import threading
import time
from datetime import timedelta

from airbyte_cdk.sources.streams.call_rate import HttpAPIBudget, LimiterSession, MovingWindowCallRatePolicy, Rate


def setting(name):
    return os.environ["PEER_" + name]


url, limit, window = setting("URL"), int(setting("LIMIT")), float(setting("WINDOW"))
# Back-off is in NICE's time; the benchmark's runs faster.
second = window / 300
policy = MovingWindowCallRatePolicy(rates=[Rate(limit=limit, interval=timedelta(seconds=window))], matchers=[])
budget = HttpAPIBudget(policies=[policy])
sessions = threading.local()


def conversation(kind, due):
    if not hasattr(sessions, "session"):
        sessions.session = LimiterSession(api_budget=budget)
        sessions.session.trust_env = False
    delay = 5 * second
    while True:
        answer = sessions.session.get(url, params={"class": kind, "due": int(due * 1e6)}, timeout=600)
        if answer.status_code == 200:
            return
        time.sleep(delay)
        delay = min(delay * 2, 600 * second)


def saturate():
    while True:
        conversation("backfill", time.time())


def arriving(kind, per_window):
    while True:
        time.sleep(random.expovariate(per_window / window))
        threading.Thread(target=conversation, args=(kind, time.time()), daemon=True).start()


for _ in range(int(setting("WORKERS"))):
    threading.Thread(target=saturate, daemon=True).start()
for kind in ("live", "reconciliation"):
    threading.Thread(target=arriving, args=(kind, float(setting(kind.upper()))), daemon=True).start()
print("{}", flush=True)
threading.Event().wait()
