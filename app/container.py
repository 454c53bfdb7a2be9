"""The one place that builds things and hands them to each other."""

import atexit
import os
import secrets

from flask import Flask

from app.config import LOCALES, Settings
from app.domain.number import NumberGenerator, RandBelow
from app.mail.messages import Messages
from app.mail.smtp import SmtpMail, SmtpSession
from app.repositories.census import Census
from app.repositories.guard import Guard
from app.repositories.keys import Names
from app.repositories.outbox import Outbox
from app.repositories.sealing import Sealer
from app.repositories.seals import Seals
from app.repositories.users import Terms, Users
from app.services.delivery.relay import Relay
from app.services.messaging import MessagingService
from app.services.monitoring import Monitoring
from app.services.registration import RegistrationService
from app.services.verification import VerificationService
from app.storage.storage import Storage
from app.telemetry.metrics import Metrics


class Container:
    """Everything a process needs, built from the settings. Nothing is started here."""

    def __init__(self, app: Flask, settings: Settings, randbelow: RandBelow = secrets.randbelow) -> None:
        self.settings = settings
        self.storage = Storage(settings.redis_url, settings.redis_timeout_s, settings.redis_wait_replicas)
        self.names = names = Names(settings.index_key or None)
        sealer = Sealer([key for key in (settings.secret_key, *settings.secret_key_fallbacks) if key])
        self.guard = Guard(self.storage, names, sealer)
        self.users = Users(self.storage, names, sealer)
        self.outbox = Outbox(self.storage, sealer, settings.lease_ms)
        self.seals = Seals(self.storage, sealer)
        self._mail = SmtpMail(app, settings.mail_timeout_s, settings.mail_ca_file)
        with app.app_context():  # Flask-Mail composes with the app's settings
            self._messages = Messages(settings.mail_default_sender, LOCALES, settings.mail_templates)
        self.metrics = Metrics()
        self.numbers = NumberGenerator(settings.number_digits, randbelow)
        self.registration = RegistrationService(
            self.users,
            self.guard,
            self.numbers,
            Terms(settings.number_ttl_s * 1000, settings.address_limit, settings.idempotency_ttl_s * 1000),
            self.metrics,
        )
        self.verification = VerificationService(
            self.users, self.guard, settings.number_digits, settings.verify_limit
        )
        self.census = Census(self.storage, sealer)
        self.monitoring = Monitoring(self.metrics, self.guard, self.outbox, self.census, self.numbers)
        self._build_workers()

    def _build_workers(self) -> None:
        """What has threads: made anew in a forked process."""
        self.messaging = MessagingService(
            self.outbox,
            self._messages,
            lambda: SmtpSession(self._mail),
            connections=self.settings.mail_connections,
            timeout_s=self.settings.mail_timeout_s,
            metrics=self.metrics,
        )
        self.relay = Relay(self.outbox, self.messaging, self.guard)

    def start(self) -> None:
        """Starts the relay in this process, or, once it forks (`gunicorn --preload`), in its children."""
        self.relay.start()
        os.register_at_fork(before=self._stop_relay, after_in_child=self._start_in_child)
        atexit.register(self.stop)

    def _stop_relay(self) -> None:
        self.relay.stop()

    def _start_in_child(self) -> None:
        self._build_workers()
        self.relay.start()

    def stop(self) -> None:
        """Finishes the mails in hand and leaves the rest to the outbox."""
        self.relay.stop()
        self.messaging.close(self.settings.mail_timeout_s)
