"""A worker process of the DirectRunner, which ends when the command that started it does.

    python -m arkjax.beam.worker PID

PID is the command's. Beam's own worker waits for ever for a command that was killed; and by the
time that this one could ask whose child it is, its command may be gone.
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
    parent = int(sys.argv.pop(1))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
