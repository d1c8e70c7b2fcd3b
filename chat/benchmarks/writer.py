"""What a send costs the store's writer, without a network and without threads: CPU time, or instructions to be counted.

The jobs of sends with an idempotency key to 64 mailboxes, done in transactions of 40 as a busy server does them, one
after the other on the main thread. Nothing about it is left to chance, so under ``valgrind`` two versions compare to a
fraction of a percent: the instructions of two runs of different length, subtracted.

    python chat/benchmarks/writer.py [--sends 20000]
    valgrind --tool=callgrind --callgrind-out-file=/dev/null python chat/benchmarks/writer.py --sends 4000
"""

import argparse
import gc
import json
import random
import secrets
import tempfile
import time
from pathlib import Path

from people import populate

from wireproto_chat.service.handlers import open_chat
from wireproto_chat.service.mailboxes import AppendMessage
from wireproto_chat.service.sessions import ChatIdentity

BATCH = 40
PEOPLE = 64
TEXT = b"x" * 60


def main() -> None:
    """Run it and print microseconds of CPU time a send."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sends", type=int, default=20_000)
    parser.add_argument("--directory", type=Path, help="where the store is made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    secrets.token_bytes = random.Random(1).randbytes  # the same work each time
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        store = Path(directory) / "chat.db"
        names = [f"u{number}" for number in range(PEOPLE)]
        populate(store, names, signed_in=PEOPLE)
        with open_chat(str(store), steady=lambda: 5000.0, clock=lambda: 1.8e9) as app:
            writer = app._store._writer
            writer.close()  # its thread; what follows is done on this one
            clocks = app._store.clocks
            senders = [
                ChatIdentity(name, number, b"", end_age=2**62, used_age=clocks.age, clocks=clocks)
                for number, name in enumerate(names, 1)
            ]

            def send(first: int) -> None:
                jobs = [
                    AppendMessage(senders[i % PEOPLE], names[i * 7 % PEOPLE], TEXT, secrets.token_bytes(16))
                    for i in range(first, first + BATCH)
                ]
                for job in jobs:
                    job.future.set_running_or_notify_cancel()
                writer._do(jobs)
                jobs[-1].future.result(0)

            send(0)
            gc.collect()
            gc.disable()
            began = time.process_time()
            for first in range(BATCH, options.sends + BATCH, BATCH):
                send(first)
            found = (time.process_time() - began) / options.sends * 1e6
    rounds = [{"writer_cpu_us_per_send": found}]
    print(json.dumps(rounds) if options.json else f"{found:.2f} us of CPU a send")


if __name__ == "__main__":
    main()
