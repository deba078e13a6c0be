#!/usr/bin/env python3
"""Keepwatch side by side with what one would use instead: `bench/bench.py COMPARISON`. See README.md."""

import argparse
import sys

import follow
import harness
import idle
import index
import inventory
import journal
import latency
import mirror
import pack
import reconcile
import s3
import scan
import ssh
import storm
import triggers
import verify

# A module each, with `arguments(parser)` and `run(options)`.
COMPARISONS = {
    "scan": scan,
    "reconcile": reconcile,
    "mirror": mirror,
    "follow": follow,
    "pack": pack,
    "storm": storm,
    "latency": latency,
    "journal": journal,
    "inventory": inventory,
    "index": index,
    "s3": s3,
    "idle": idle,
    "ssh": ssh,
    "verify": verify,
    "triggers": triggers,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    subparsers = parser.add_subparsers(dest="comparison", required=True)
    for name, module in COMPARISONS.items():
        sub = subparsers.add_parser(name, help=module.__doc__, description=module.__doc__)
        sub.add_argument("--rounds", type=int, default=5, help="measured rounds (default: %(default)s)")
        sub.add_argument("--seed", type=int, default=7, help="of the data (default: %(default)s)")
        sub.add_argument("--tmpfs", action="store_true", help="data on tmpfs instead of ext4 on a loop device")
        sub.add_argument("--json", metavar="FILE", help="write the numbers there too")
        module.arguments(sub)
    options = parser.parse_args()
    try:
        COMPARISONS[options.comparison].run(options)
    except harness.Refused as refused:
        print(f"bench: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
