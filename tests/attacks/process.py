"""A process that attacks a server: python tests/attacks/process.py NAME SECONDS ADDRESS HTTP TOKEN.

It prints "ready", waits for a line of input, attacks, and prints the number of calls by status as JSON.

Real attackers bring their own processors. Therefore, these processes have a lower priority than the server.
"""

import asyncio
import contextlib
import json
import logging
import os
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["GRPC_VERBOSITY"] = "NONE"

from attacks.attacker import Attack, Attacker, Target
from attacks.grpc_attacks import BASELINES, GRPC_ATTACKS
from attacks.http_attacks import HTTP_ATTACKS

NICENESS = 10


async def _attack(attack: Attack, target: Target, seconds: float) -> None:
    attacker = Attacker(target)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await attack.run(attacker)
    print(json.dumps(attacker.statuses), flush=True)
    # All connections end at once, as if the attacker had been killed.
    os._exit(0)


def main() -> None:
    """Attack the server."""
    name, seconds, *target = sys.argv[1:]
    os.nice(NICENESS)
    # Streams whose calls have ended leave tasks behind in gRPC, which asyncio would log.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attack = next(each for each in [*BASELINES, *GRPC_ATTACKS, *HTTP_ATTACKS] if each.name == name)
    asyncio.run(_attack(attack, Target(*target), float(seconds)))


if __name__ == "__main__":
    main()
