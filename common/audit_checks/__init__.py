"""What must be true of the tables, as queries for the rows that break it.

    check       what a check is, and what several of them count and join
    log         the log and how far it is settled (I1, I7)
    orders      orders and what operators skipped; trades
    money       balances, the ledger, deposits and withdrawals, and the audit log (I10)

Three habits keep them honest: what is
joined is joined from both sides, so that a missing row is found like a wrong one; what may be NULL is
coalesced before it is compared; and every join is by equality, so that a million orders are hashed and
not searched. A `FULL JOIN` that stands alone would say more than one that is narrowed afterwards.
"""

from common.audit_checks.check import Check
from common.audit_checks.log import LOG_CHECKS
from common.audit_checks.money import MONEY_CHECKS, OUTSIDE_CHECKS
from common.audit_checks.orders import ORDER_CHECKS, SKIP_CHECKS, TRADE_CHECKS

__all__ = ["CHECKS", "Check"]

CHECKS = (*LOG_CHECKS, *ORDER_CHECKS, *SKIP_CHECKS, *TRADE_CHECKS, *MONEY_CHECKS, *OUTSIDE_CHECKS)
