"""How a body becomes a report of a mail. May import `bodies`, `schemas`, `domain` and `mail`."""

from flask import Request
from marshmallow import ValidationError

from app.domain.report import TAG, Report, ReportKind, failure
from app.http.bodies import MESSAGE, read_json, read_message
from app.http.schemas import ReportByMessageId, ReportByTag
from app.mail import reports


def read_report(req: Request) -> Report:
    """What a body reports, as a message or as JSON. Raises ValidationError, and what `bodies` raises."""
    if req.mimetype == MESSAGE:
        message = read_message(req)
        if not message:
            raise ValidationError({"body": ["Must be a message."]})
        return reports.read(message)
    found = read_json(req)
    by_id = isinstance(found, dict) and "message_id" in found
    body = (ReportByMessageId() if by_id else ReportByTag()).load(found)
    kind, code = ReportKind(body["kind"]), body.get("code", "")
    if kind is ReportKind.BOUNCED:
        kind = failure(code)
    return Report(kind, code, tuple(TAG.findall(body["message_id" if by_id else "tag"])))
