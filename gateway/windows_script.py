"""The sliding windows of `windows` as a Lua script: many checks in one call, by Redis' own clock.

    KEYS[i]         who is checked
    ARGV[2i - 1]    the number of the rule, from 1 on, as the script was made with
    ARGV[2i]        the weight
    returns         for each check five unsigned 32-bit numbers, big-endian: the fields of a Verdict

A subject is one string: {told_ms, strikes, then for each window the newest slot and RING counts}, packed by
cmsgpack. It expires when nothing in it matters any more. Numbers below 2^53 are exact in Lua.
"""

from collections.abc import Sequence
from struct import iter_unpack

from gateway.redis_pipe import Script
from gateway.windows import CALM_MS, FIRST_PAUSE_MS, MOST_PAUSE_MS, SLOTS, Outcome, Verdict, Window

_OUTCOMES = tuple(Outcome)

CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_CONSTANTS = """
local SLOTS, RING = {slots}, {slots} + 1
local FIRST_PAUSE, MOST_PAUSE, CALM = {first_pause}, {most_pause}, {calm}
local RULES = {{ {rules} }}
"""

_BODY = """
local floor, max, min = math.floor, math.max, math.min

local function load(key, windows)
    local packed = redis.call('GET', key)
    local state = packed and cmsgpack.unpack(packed) or {0, 0}
    for w = 1, #windows do
        local at, slot = 3 + (w - 1) * (RING + 1), floor(now / windows[w][2])
        local newest = state[at]
        if not newest or slot < newest - RING or slot > newest + RING then
            state[at] = slot
            for i = 1, RING do state[at + i] = 0 end
        else
            while newest < slot do
                newest = newest + 1
                state[at + 1 + newest % RING] = 0
            end
            state[at] = newest
        end
    end
    return state
end

local function used(state, at)
    local sum = 0
    for i = at + 1, at + RING do sum = sum + state[i] end
    return sum
end

local function free(state, at, amount, length)
    local newest = state[at]
    for slot = newest - SLOTS, newest do
        amount = amount - state[at + 1 + slot % RING]
        if amount <= 0 then return (slot + RING) * length - now end
    end
    return (newest + RING) * length - now
end

local function strike(state, room)
    if now < state[1] then
        return state[2] > 1 and max(room, state[1] - now) or room
    end
    state[2] = now > state[1] + CALM and 1 or state[2] + 1
    if state[2] == 1 then
        state[1] = now + room
        return room
    end
    local pause = min(MOST_PAUSE, FIRST_PAUSE * 2 ^ min(state[2] - 2, 20))
    state[1] = now + max(pause, min(room, MOST_PAUSE))
    return max(pause, room)
end

local function check(key, windows, weight)
    local state = load(key, windows)
    local outcome, retry = 1, 0
    if state[2] > 1 and now < state[1] then
        outcome, retry = 2, state[1] - now
    else
        local room = 0
        for w = 1, #windows do
            local at = 3 + (w - 1) * (RING + 1)
            local over = used(state, at) + weight - windows[w][1]
            if over > 0 then room = max(room, free(state, at, over, windows[w][2])) end
        end
        if room > 0 then
            outcome, retry = 0, strike(state, room)
        else
            for w = 1, #windows do
                local at = 3 + (w - 1) * (RING + 1)
                local place = at + 1 + state[at] % RING
                state[place] = state[place] + weight
            end
        end
    end
    local keep = CALM + max(0, state[1] - now)
    for w = 1, #windows do keep = max(keep, RING * windows[w][2]) end
    redis.call('SET', key, cmsgpack.pack(state), 'PX', keep)
    local told, at, sum = windows[1], 3, used(state, 3)
    for w = 2, #windows do
        local other = used(state, 3 + (w - 1) * (RING + 1))
        if other * told[1] > sum * windows[w][1] then
            told, at, sum = windows[w], 3 + (w - 1) * (RING + 1), other
        end
    end
    local reset = sum > 0 and free(state, at, 1, told[2]) or 0
    return struct.pack('>I4I4I4I4I4', outcome, retry, told[1], sum, reset)
end

local verdicts = {}
for i = 1, #KEYS do
    verdicts[i] = check(KEYS[i], RULES[tonumber(ARGV[2 * i - 1])], tonumber(ARGV[2 * i]))
end
return table.concat(verdicts)
"""


def source(rules: Sequence[tuple[Window, ...]], clock: str = CLOCK) -> str:
    """The script for these rules; `clock` sets `now`, in ms."""
    constants = _CONSTANTS.format(
        slots=SLOTS,
        first_pause=FIRST_PAUSE_MS,
        most_pause=MOST_PAUSE_MS,
        calm=CALM_MS,
        rules=", ".join(map(_rule, rules)),
    )
    return clock + constants + _BODY


def _rule(windows: tuple[Window, ...]) -> str:
    return "{" + ", ".join(f"{{{window.limit}, {window.slot_ms}}}" for window in windows) + "}"


def script(rules: Sequence[tuple[Window, ...]]) -> Script:
    return Script(source(rules))


def read(reply: bytes) -> list[Verdict]:
    """The verdicts in what the script returned."""
    return [
        Verdict(_OUTCOMES[outcome], retry_ms, limit, used, reset_ms)
        for outcome, retry_ms, limit, used, reset_ms in iter_unpack(">5I", reply)
    ]
