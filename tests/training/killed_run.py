"""Runs a recipe and sends itself a signal before a given step: what the resume tests start as a process of its own.

python killed_run.py CONFIG.json WORKDIR STEP SIGNAL     (STEP -1: never)
"""

import json
import os
import signal
import sys
from pathlib import Path

from ml_collections import ConfigDict


def main() -> None:
    from jaxvpr.training import loop
    from jaxvpr.verbs import train

    config, folder, last, name = sys.argv[1:]
    make_step = loop.make_step

    def counted(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def run(state, batches, turn):
            if int(turn.number) == int(last):
                os.kill(os.getpid(), getattr(signal, name))
            return step(state, batches, turn)

        return run

    loop.make_step = counted
    train.run(ConfigDict(json.loads(Path(config).read_text())).lock(), Path(folder))


if __name__ == "__main__":
    main()
