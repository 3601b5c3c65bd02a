"""Idempotency keys as order-service keeps them, in memory and for ever."""

import threading
from dataclasses import dataclass

from exchange.v1 import internal_pb2 as internal


@dataclass
class _Row:
    fingerprint: bytes
    claimant: int
    answer: bytes = b""


CREATED_US = 1_767_323_045_000_006


class Keys:
    """`claims`: how many have come."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str], _Row] = {}
        self._lock = threading.Lock()
        self.claims = 0

    def claim(self, claim: internal.KeyClaim) -> internal.KeyState:
        with self._lock:
            self.claims += 1
            new = _Row(claim.fingerprint, claim.claimant)
            row = self._rows.setdefault((claim.user_id, claim.key), new)
            if row.claimant == 0 and row.fingerprint == claim.fingerprint:
                row.claimant = claim.claimant
            return _state(row, claim.claimant)

    def settle(self, settlement: internal.KeySettlement) -> internal.KeyState:
        with self._lock:
            row = self._rows[settlement.user_id, settlement.key]
            if row.claimant == settlement.claimant and not row.answer:
                row.answer = settlement.answer
                row.claimant = settlement.claimant if settlement.answer else 0
            return _state(row, settlement.claimant)

    def fall_silent(self) -> None:
        """As if all claimants had been silent for so long that others may take over."""
        with self._lock:
            for row in self._rows.values():
                row.claimant = row.claimant if row.answer else 0


def _state(row: _Row, claimant: int) -> internal.KeyState:
    return internal.KeyState(
        claimed=row.claimant == claimant and not row.answer,
        fingerprint=row.fingerprint,
        answer=row.answer,
        created_us=CREATED_US,
    )
