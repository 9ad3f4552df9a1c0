"""A process of a test ends with the test run, however that ended: guard and agent would raise each other for ever."""

import os
import threading
import time


def tie(pid: int) -> None:
    """End this process soon after that one."""

    def watch() -> None:
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
