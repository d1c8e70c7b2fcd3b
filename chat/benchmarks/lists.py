"""How long a page of a list of accounts takes when there are many: the first page of a pattern that many names match,
and one that finds nothing among as many names as one call looks at.

    python chat/benchmarks/lists.py [--accounts 100000] [--rounds 3] [--pages 200] [--directory DIR]
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from people import Client, percentiles, populate, say, server, table

from wireproto_chat.opcodes import PAGE_LIMIT, WILD_CARD, WildCardRequest
from wireproto_chat.service.rates import RATES

PATTERNS = {"many": "*a*", "none": "*a*b*c*d*e*f*"}


def names(count: int) -> list[str]:
    """So many names, of letters and a number, always the same ones; none has all of a to f in that order."""
    chance = random.Random(11)
    return [f"{''.join(chance.choices('aehilnorstuy', k=chance.randrange(3, 12)))}{number}" for number in range(count)]


def main() -> None:
    """Run it and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=200, help="of either kind in a round")
    parser.add_argument("--directory", type=Path, help="where the store is made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        store = Path(directory) / "chat.db"
        # No account may list without end, so many take turns.
        burst = RATES[WILD_CARD.name].burst
        callers = -(-options.rounds * options.pages * len(PATTERNS) // (burst - 10))
        tokens = populate(store, names(options.accounts), signed_in=callers)
        say(f"{options.accounts:,} accounts are made")
        with server(store) as (_, address):
            clients = [Client(address, name, token) for name, token in tokens.items()]
            turn = 0
            for number in range(options.rounds):
                found: dict[str, float] = {}
                for label, pattern in PATTERNS.items():
                    payload = clients[0].encode(WILD_CARD, WildCardRequest(pattern=pattern))
                    decode = clients[0].decoder(WILD_CARD)
                    times = []
                    for _ in range(options.pages):
                        turn += 1
                        client = clients[turn % len(clients)]
                        begin = time.perf_counter()
                        answer = decode(client.call(WILD_CARD, payload))
                        times.append(time.perf_counter() - begin)
                        expected = (PAGE_LIMIT, True) if label == "many" else (0, True)
                        if (len(answer.accounts), bool(answer.next)) != expected:
                            raise RuntimeError(f"{pattern} has {len(answer.accounts)} accounts on its first page")
                    found |= {f"{label}_{name}": value for name, value in percentiles(times).items()}
                rounds.append(found)
                say(
                    f"round {number + 1} of {options.rounds}: {found['many_p99_ms']:.1f}, {found['none_p99_ms']:.1f} ms"
                )
    print(json.dumps(rounds) if options.json else table(rounds))


if __name__ == "__main__":
    main()
