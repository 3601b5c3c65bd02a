"""`python -m tests.chaos --minutes 60 --seed N --report DIR`; exit code 1 when something did not hold."""

import argparse
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio

from tests.chaos.faults import all_kinds
from tests.chaos.load import Rate
from tests.chaos.report import write_report
from tests.chaos.runner import Options, possible, run
from tests.chaos.schedule import one_cycle, schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", "--chaos-seed", type=int, help="the same seed, the same faults")
    parser.add_argument("--report", type=Path, help="folder for REPORT.md and its plot")
    parser.add_argument("--only", default="", help="only kinds whose name contains this")
    parser.add_argument("--turns", type=float, default=Rate().turns_per_s, help="of all users, a second")
    parser.add_argument("--keep", type=Path, help="folder for data and logs (default: a new one in /tmp)")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    kinds = [kind for kind in possible(all_kinds()) if arguments.only in kind.name]
    print(f"seed {seed}; the first cycle of {len(kinds)} kinds:", flush=True)
    print("\n".join(map(str, one_cycle(seed, kinds))), flush=True)
    options = Options(seed, arguments.minutes * 60, rate=Rate(arguments.turns))
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    go = partial(run, options, schedule(seed, kinds), folder.absolute(), partial(print, flush=True))
    outcome = anyio.run(go, backend_options={"use_uvloop": True})
    if arguments.report:
        print(f"written: {write_report(outcome, arguments.report)}", flush=True)
    print("FAILED" if outcome.failure else "Everything held.", f"(seed {seed}; logs in {folder})", flush=True)
    return 1 if outcome.failure else 0


if __name__ == "__main__":
    sys.exit(main())
