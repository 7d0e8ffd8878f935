"""The comparison as one would write it in Python: all known ids in a set, each listed id asked.

Arguments: first id, known, listed, every. Prints a line when the set stands, and the seconds at each line of stdin.
"""

import json
import sys
import time

first, known, listed, every = map(int, sys.argv[1:])
new = range(first + known - listed, first + known)
ids = set(range(first, first + known - listed))
ids.update(id for id in new if id % every != every // 2)
# A JSON reader has made an integer of its own for each listed id.
asked = list(map(int, map(str, new)))


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


print(json.dumps({"resident": resident()}), flush=True)
for _ in sys.stdin:
    begun = time.perf_counter()
    missing = [id for id in asked if id not in ids]
    print(json.dumps({"seconds": time.perf_counter() - begun, "missing": len(missing)}), flush=True)
