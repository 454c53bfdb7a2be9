"""Finds mails among many: by whom they are for and whose they are."""

import threading
from collections import defaultdict

from tests.support.servers import Received


class Inbox:
    """The mails that a server has accepted since this was made, each looked at once. For many threads."""

    def __init__(self, accepted: list[Received]) -> None:
        """`accepted`: grows while mails come in."""
        self._accepted = accepted
        self._read = len(accepted)
        self._lock = threading.Lock()
        self._mails: dict[tuple[str, str], list[Received]] = defaultdict(list)

    def mails(self, recipient: str, sender: str) -> list[Received]:
        """In the order of their acceptance. `sender`: of the envelope."""
        with self._lock:
            while self._read < len(self._accepted):
                mail = self._accepted[self._read]
                self._mails[mail.recipient, mail.sender].append(mail)
                self._read += 1
            return list(self._mails[recipient, sender])
