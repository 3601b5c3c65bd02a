"""How much one client may say: a bucket that fills at an even pace; pure."""


class Allowance:
    """`burst` at once, and `per_s` for ever. The clock is the caller's, in seconds."""

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        assert per_s > 0
        assert burst > 0
        self._per_s = per_s
        self._burst = self._left = burst
        self._at_s = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Take it, or return False when there is not so much; then nothing is taken."""
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True
