"""The one place that builds things and hands them to each other."""

import atexit
import os
import ssl
from contextlib import suppress

from flask import Flask, current_app

from app.config import Settings
from app.directory.directory import Directory
from app.directory.in_force import InForce
from app.domain.number import NumberGenerator, RandBelow
from app.domain.service import Service
from app.errors import SettingsError
from app.mail.messages import Messages, faults
from app.mail.smtp import SmtpMail
from app.repositories.census import Census
from app.repositories.client_limits import ClientLimits
from app.repositories.counts import Counts
from app.repositories.events import Events
from app.repositories.guard import Guard
from app.repositories.keys import Names
from app.repositories.outbox import Outbox
from app.repositories.records import Sealer
from app.repositories.reports import Reports
from app.repositories.seals import Seals
from app.repositories.tags import Tags
from app.repositories.users import Users
from app.services.events import EventService
from app.services.messaging import MessagingService
from app.services.monitoring import Monitoring
from app.services.registration import RegistrationService, TracedRegistration
from app.services.reports import ReportService
from app.services.verification import TracedVerification, VerificationService
from app.storage.storage import Storage
from app.storage.traced import TracedStorage
from app.telemetry.collector import traces_from_environment
from app.telemetry.metrics import Metrics, Stage
from app.threads import forget_greenlets
from app.webhook.webhooks import Webhooks


class Container:
    """Everything a process needs, built from the settings. Nothing is started here."""

    def __init__(self, app: Flask, settings: Settings, randbelow: RandBelow) -> None:
        self.settings = settings
        self.traces = traces_from_environment()
        where = settings.redis_url, settings.redis_timeout_s, settings.redis_wait_replicas
        self.storage = TracedStorage(self.traces, *where) if self.traces.on else Storage(*where)
        self._in_force = InForce(settings, faults)
        self.metrics = Metrics()
        self._read_services()
        self.names = names = Names(settings.index_key or None)
        sealer = Sealer([key for key in (settings.secret_key, *settings.secret_key_fallbacks) if key])
        self.guard = Guard(self.storage, names, sealer)
        self.users = Users(self.storage, names, sealer, settings.idempotency_ttl_s * 1000)
        self.outbox = Outbox(self.storage, sealer, settings.lease_ms)
        self.suppressions = Reports(self.storage, settings.suppress_ttl_s * 1000)
        self.seals = Seals(self.storage, sealer)
        self._mail = SmtpMail(app, settings.mail_timeout_s, settings.mail_ca_file)
        self.tags = Tags(settings.index_key or None)
        tagged = (settings.bounce_address, self.tags.make) if settings.bounce_address else ()
        self.messages = Messages(self.service, *tagged)
        self.numbers = NumberGenerator(settings.number_digits, randbelow)
        verifying = self.users, self.guard, settings.number_digits, self._happened
        self.verification = (
            TracedVerification(self.traces, *verifying) if self.traces.on else VerificationService(*verifying)
        )
        self.reports = ReportService(
            self.users, self.suppressions, self.guard, self.tags, self.metrics, self._happened
        )
        self.client_limits = ClientLimits(self.storage, names)
        self.census = Census(self.storage, sealer)
        self.counts = Counts(self.storage)
        self.monitoring = Monitoring(
            self.metrics,
            self.guard,
            self.outbox,
            self.census,
            self.numbers,
            counted_elsewhere=self.counts.take,
            mail_state=lambda: (self.messaging.state, self.messaging.heard_at),
            events_waiting=lambda: self.events.waiting(),  # noqa: PLW0108 made anew in a fork
            receivers=lambda: self.events.unwell(),  # noqa: PLW0108
            threads=lambda: (*self.messaging.threads, *self.events.threads, *self.storage.threads),
            folder_is_new=self._in_force.share_again,
        )
        self._build_messaging()

    def _read_services(self) -> None:
        """Puts the services in force. Raises SettingsError, and then changes nothing."""
        self.directory = Directory(self._in_force.read())
        self.metrics.serving(self.directory.services)

    def _build_messaging(self) -> None:
        """Builds what has threads and connections, and what uses that: a forked process needs its own."""
        self.events = EventService(
            Events(self.storage, self.names),
            self.guard,
            Webhooks(tls=ssl.create_default_context() if self.directory.listens else None),
            start=self._in_force.start,
            service=self.service,
            listening=lambda: self.directory.listens,
            metrics=self.metrics,
            traces=self.traces,
        )
        self.messaging = MessagingService(
            self.outbox,
            self.guard,
            self.messages,
            self._mail,
            connections=self.settings.mail_connections,
            timeout_s=self.settings.mail_timeout_s,
            happened=self._happened,
            metrics=self.metrics,
            traces=self.traces,
        )
        registering = self.users, self.guard, self.numbers, self.messaging, self.metrics
        self.registration = (
            TracedRegistration(self.traces, *registering)
            if self.traces.on
            else RegistrationService(*registering)
        )

    def service(self, service_id: str) -> Service | None:
        """The service with this id that is in force now."""
        return self.directory.get(service_id)

    def _happened(self, service_id: str, user_id: str, stage: Stage) -> None:
        """Counts that a registration has reached this stage; an event of it may have been written."""
        self.metrics.stage(service_id, stage)
        self.events.noticed(service_id, user_id)

    def start(self) -> None:
        """Starts the relays in this process.

        A process that forks before its relay has begun is a master (`gunicorn --preload`): its own relay
        never begins, those of its children do. A process that forks later goes on. Where it has answered
        nothing by then it may be a slow master, so its child has relays, too; else its child serves no
        requests, and mails only what it registers itself.
        """
        self._start_threads()
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._after_fork_in_child,
        )
        atexit.register(self.stop)

    def _start_threads(self) -> None:
        self.messaging.start()
        self.events.start()
        self.monitoring.start()

    def _before_fork(self) -> None:
        self._is_master = not self.messaging.begun
        if self._is_master:
            self.messaging.close(0)
            self.events.stop()
            self.monitoring.stop()

    def _after_fork_in_parent(self) -> None:
        if self._is_master:
            self._build_messaging()
            self.messaging.stand_by()

    def _after_fork_in_child(self) -> None:
        if not self._is_master:
            forget_greenlets()
        serves = self._is_master or not self.metrics.has_answered
        if serves:
            with suppress(SettingsError):  # a wrong file: the services of the master stay in force
                self._read_services()  # under --preload a reload only forks anew
        self._build_messaging()
        if serves:
            self._start_threads()
        else:
            self.messaging.stand_by()

    def stop(self) -> None:
        """Finishes the mails in hand and leaves the rest to the outbox."""
        self.messaging.close(self.settings.mail_timeout_s)
        self.events.stop()
        self.monitoring.stop()
        self.traces.close()


def services() -> Container:
    """The container of the current request or command."""
    found: Container = current_app.extensions["cedula"]
    return found
