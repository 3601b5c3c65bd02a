"""An engine that follows: what a standby has kept is, byte for byte, what a leader has sent."""

import pytest

from common.core import engine as engine_module
from common.core.engine import Engine
from common.core.sequencing import Verdict
from common.kafka import Message
from common.topics import topics
from common.wire import decode_batch
from daemons.matching.following import Following, Outdated
from daemons.matching.kept import Forked
from daemons.matching.settled import Settled
from tests.harness.servers import bare_settings
from tests.unit.daemons.matching.logs import log_of, trading

TOPICS = topics(bare_settings())


def following() -> Following:
    return Following(Engine(0), TOPICS, skips=(), last_act=7)


def run(follower: Following, batches: int, *, leading: bool) -> list[Message]:
    messages: list[Message] = []
    for record in log_of(trading(batches)):
        batch = decode_batch(record.value)
        assert follower.judge(batch) is Verdict.NEXT
        made = follower.compute(batch, record.offset, leading=leading)
        follower.keep(made)
        messages += made.messages
    return messages


def test_a_standby_keeps_what_a_leader_sends() -> None:
    leader, standby = following(), following()
    sent = run(leader, 5, leading=True)
    assert run(standby, 5, leading=False) == []
    kept = [message for batch in standby.kept.all() for message in batch.events(TOPICS)]
    assert kept == [message for message in sent if message.topic != TOPICS.orderbook]
    assert standby.books() == leader.books()


def test_an_act_of_an_operator_outdates_it() -> None:
    follower = following()
    run(follower, 1, leading=False)
    follower.settled(Settled(0, bytes(32), 7))
    with pytest.raises(Outdated, match="8"):
        follower.settled(Settled(0, bytes(32), 8))


def test_digests_are_compared_once_they_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DIGEST_EVERY", 4)
    leader, standby = following(), following()
    for each in (leader, standby):
        run(each, 4, leading=False)
    assert standby.wanted_digests() == []
    first, last = standby.kept.all()[0], standby.kept.all()[-1]
    standby.settled(Settled(last.last_sequence, last.chain, 7))
    wanted = standby.wanted_digests()
    assert wanted == [5, 9]
    digests = {at: dict(leader._digests[at]) for at in wanted}
    standby.compare_digests(wanted, digests)
    assert standby.wanted_digests() == []
    leader.settled(Settled(first.last_sequence, first.chain, 7))
    leader.settled(Settled(last.last_sequence, last.chain, 7))
    with pytest.raises(Forked, match="9"):
        leader.compare_digests(wanted, {5: digests[5], 9: {1: bytes(32)}})


def test_digests_that_nobody_settled_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DIGEST_EVERY", 4)
    follower = following()
    run(follower, 2, leading=False)
    last = follower.kept.all()[-1]
    follower.settled(Settled(last.last_sequence, last.chain, 7))
    follower.compare_digests(follower.wanted_digests(), {})  # A leader of an older version settled these.
    assert follower.wanted_digests() == []
