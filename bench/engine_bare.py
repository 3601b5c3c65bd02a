"""The machine's own limit beside `bench.engine`: what it costs to reach objects that no cache holds.

`python -m bench.engine_bare LIVE` prints microseconds. No engine runs: so many orders stand in a dict and, in
random sequence, in two doubly linked lists, as they do in a book (their price's and their user's). A step
takes one out and puts another in, somewhere else. Of 100 commands of the flow 35 take a random order out and
35 put one in at a random price, so a command costs 35 hundredths of a step. Only the difference of two sizes
tells something: the rest is the interpreter.
"""

import sys
import time
from random import Random

from common.core.levels import Order
from common.core.messages import Side
from common.supervise import calm_collector

STEPS_A_COMMAND = 0.35
STEPS, PASSES = 20_000, 5


def measure(live: int) -> float:
    """Microseconds for what one command of the flow reaches at random; the best of `PASSES`."""
    random = Random(1)
    orders = {order_id: _order(order_id) for order_id in range(live)}
    for link in (_queue, _owned):
        ids = list(orders)
        random.shuffle(ids)
        for before, after in zip(ids, ids[1:] + ids[:1], strict=True):
            link(orders[before], orders[after])
    calm_collector()
    return min(_pass(orders, random) for _ in range(PASSES)) * STEPS_A_COMMAND


def _pass(orders: dict[int, Order], random: Random) -> float:
    """Microseconds a step. What leaves and what stays, beside which the next ones go, is drawn beforehand."""
    ids, first = list(orders), max(orders) + 1
    random.shuffle(ids)
    half = len(ids) // 2
    leaving, staying = ids[:half][:STEPS], ids[half:]
    steps = list(
        zip(leaving, random.choices(staying, k=STEPS), random.choices(staying, k=STEPS), strict=False)
    )
    begun_s = time.process_time()
    for number, (order_id, beside, owned_beside) in enumerate(steps, first):
        order = orders.pop(order_id)
        _queue(order.older, order.newer)
        _owned(order.user_previous, order.user_next)
        order = orders[number] = _order(number)
        at = orders[beside]
        _queue(order, at.newer)
        _queue(at, order)
        at = orders[owned_beside]
        _owned(order, at.user_next)
        _owned(at, order)
    return (time.process_time() - begun_s) / len(steps) * 1e6


def _order(order_id: int) -> Order:
    return Order(order_id, 1, 1, f"c{order_id}", Side.BUY, 1, 1, 1, order_id)


def _queue(older: Order | None, newer: Order | None) -> None:
    assert older is not None
    assert newer is not None
    older.newer, newer.older = newer, older


def _owned(before: Order | None, after: Order | None) -> None:
    assert before is not None
    assert after is not None
    before.user_next, after.user_previous = after, before


if __name__ == "__main__":
    print(measure(int(sys.argv[1])))
