#!/usr/bin/env python3
"""A worker of the analysis queue: takes conversations, analyses each, and tells what became of it.

    python3 analysis_worker.py postgres://worker:password@127.0.0.1/knovvu [--most N]

Any number may run. Without --most it works until it is ended.
"""

import argparse
import select
import sys
import time

import psycopg2

# A notification may be lost with its connection; the table is the truth.
LOOK_SECONDS = 60

# Who shows no sign of life for so long is taken for dead: much longer than the time between two signs of life.
DEAD_AFTER = "30 minutes"

SIGN_OF_LIFE_SECONDS = 60


class Unfit(Exception):
    """This conversation cannot be analysed, and not the next time either."""


class Lost(Exception):
    """The claim is over: another worker has the conversation, or it was erased."""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url")
    arguments.add_argument("--most", type=int)
    arguments = arguments.parse_args()
    connection = psycopg2.connect(arguments.url, application_name="analysis-worker")
    # Each statement is a transaction of its own: while one works, nothing is locked, and the claim holds.
    connection.autocommit = True
    ask(connection, "listen analysis_queue")
    done, released = 0, float("-inf")
    while arguments.most is None or done < arguments.most:
        if time.monotonic() - released >= LOOK_SECONDS:
            ask(connection, "select release_analysis(%s::interval)", DEAD_AFTER)
            released = time.monotonic()
        # One at a time: what this worker holds and has not begun would wait for it.
        claimed = ask(connection, "select conversation_id, claim from claim_analysis(1, %s)", "python")
        if claimed:
            work(connection, *claimed[0])
            done += 1
        elif arguments.most is not None:
            break
        else:
            select.select([connection], [], [], LOOK_SECONDS)
            connection.poll()
            connection.notifies.clear()
    print(f"{done} conversations")


def work(connection, conversation, claim):
    """Analyses one conversation, and settles the claim in one of three ways."""
    try:
        analyse(connection, conversation, sign_of_life(connection, conversation, claim))
    except Lost:
        print(f"{conversation}: another worker has it, or it was erased", file=sys.stderr)
    except Unfit as reason:
        ask(connection, "select fail_analysis(%s, %s, %s, for_good => true)", conversation, claim, str(reason))
    except (ConnectionError, TimeoutError):
        # Not this conversation's fault: it goes back uncounted, and whoever takes it next should not be at once.
        ask(connection, "select release_analysis(%s, %s)", conversation, claim)
        time.sleep(1)
    except Exception as error:  # A mistake of ours: counted, and tried again until the fifth time.
        ask(connection, "select fail_analysis(%s, %s, %s)", conversation, claim, type(error).__name__)
    else:
        if not ask(connection, "select finish_analysis(%s, %s)", conversation, claim)[0][0]:
            print(f"{conversation}: finished too late", file=sys.stderr)


def sign_of_life(connection, conversation, claim):
    """What the analysis calls now and then."""
    last = time.monotonic()

    def alive():
        nonlocal last
        if time.monotonic() - last >= SIGN_OF_LIFE_SECONDS:
            last = time.monotonic()
            if not ask(connection, "select extend_analysis(%s, %s)", conversation, claim)[0][0]:
                raise Lost

    return alive


def analyse(connection, conversation, alive):
    """Stands for the analysis, which must be repeatable: a worker may die behind it and before `finish_analysis`."""
    recordings = "select bucket, object_key, size_bytes, sha256 from recordings where conversation_id = %s order by position"
    for bucket, object_key, size_bytes, sha256 in ask(connection, recordings, conversation):
        alive()
        if size_bytes == 0:
            raise Unfit("a recording is empty")
        # Here the object is read from the store, and its SHA-256 compared.
        del bucket, object_key, sha256


def ask(connection, statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


if __name__ == "__main__":
    main()
