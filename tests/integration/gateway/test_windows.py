"""The script and its twin in Python say the same, whatever is asked when."""

import random

import redis

from daemons.local.servers import Servers
from gateway.windows import LocalWindows, Window
from gateway.windows_script import read, source

RULES = (
    (Window(10, 10),),
    (Window(1_000, 10), Window(2_500, 86_400)),
)
CLOCK = "local now = tonumber(ARGV[#ARGV])\n"


def test_the_script_decides_as_its_twin(servers: Servers, seed: int) -> None:
    draw = random.Random(seed)
    local = LocalWindows()
    now_ms = 1_800_000_000_000
    with redis.Redis.from_url(servers.redis_url) as client:
        script = client.register_script(source(RULES, CLOCK))
        for _ in range(500):
            now_ms += draw.choice((0, 1, 40, 500, 3_000, -700))
            if draw.random() < 0.01:
                now_ms += draw.choice((70_000, 400_000, 50_000_000))
            asked = [
                (b"windows:%d:%d:%d" % (seed, rule, draw.randrange(2)), rule, _weight(draw, rule))
                for rule in draw.choices((0, 1), k=draw.randint(1, 3))
            ]
            arguments = [word for _, rule, weight in asked for word in (rule + 1, weight)]
            reply = script(keys=[key for key, _, _ in asked], args=[*arguments, now_ms])
            expected = [local.check(key, RULES[rule], weight, now_ms) for key, rule, weight in asked]
            assert read(reply) == expected


def _weight(draw: random.Random, rule: int) -> int:
    return draw.choice((1, 1, 2, 20)) if rule == 0 else draw.choice((1, 1, 100, 400))
