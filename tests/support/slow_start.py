"""gunicorn's own defaults, and a machine that is slow between loading the service and the first fork."""

import time
from typing import Any


def on_starting(_: Any) -> None:
    time.sleep(1.5)
