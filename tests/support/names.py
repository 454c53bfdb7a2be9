"""A DNS server for tests: answers over UDP from what it was given, and NXDOMAIN for the rest."""

import socket
import threading
from collections.abc import Mapping

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.resolver
import dns.rrset

Zone = Mapping[str, Mapping[str, list[str]]]
"""Name -> kind -> what it has: `{"example.com": {"MX": ["10 mail.example.com."]}}`."""


class NameServer:
    """Serves one zone on 127.0.0.1 until it is stopped."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def resolver(self) -> dns.resolver.Resolver:
        """A resolver that asks this server and no other."""
        found = dns.resolver.Resolver(configure=False)
        found.nameservers = ["127.0.0.1"]
        found.port = self._socket.getsockname()[1]
        found.lifetime = 2.0
        return found

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            wire, client = self._socket.recvfrom(4096)
            if not wire:
                return
            self._socket.sendto(self._answer(dns.message.from_wire(wire)).to_wire(), client)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA
        if name not in self._zone and not any(known.endswith(f".{name}") for known in self._zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        kind = question.rdtype.name
        if values := self._zone.get(name, {}).get(kind):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *values))
        return answer
