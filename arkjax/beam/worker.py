"""A worker process of the DirectRunner, which ends when the command that started it does.

    python -m arkjax.beam.worker

Beam's own waits for ever for a command that was killed.
"""

import os
import sys
import threading
import time


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Work until there is nothing left to do."""
    from apache_beam.runners.worker import sdk_worker_main

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
