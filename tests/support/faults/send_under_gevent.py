"""A program: sends mails under gevent, as a worker does, and prints what each came to and how long it took.

python -m tests.support.faults.send_under_gevent TIMEOUT_S PORT [tls]
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 gevent first
import time  # noqa: E402

import flask  # noqa: E402

from app.mail.messages import Mail  # noqa: E402
from app.mail.smtp import MailFault, SmtpMail, SmtpSession  # noqa: E402


def main(timeout_s: float, port: int, tls: bool) -> None:
    app = flask.Flask("mail")
    app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=port, MAIL_USE_SSL=tls)
    session = SmtpSession(SmtpMail(app, timeout_s))
    began, code = time.monotonic(), "sent"
    try:
        session.send(Mail("no-reply@example.com", "person0@example.com", b"Subject: x\r\n\r\nx\r\n"))
    except MailFault as fault:
        code = fault.code
    session.close()
    print(f"{time.monotonic() - began:.2f}", code)  # noqa: T201 its answer


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["tls"])
