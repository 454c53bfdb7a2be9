"""How a body becomes the argument of a view: read strictly, then loaded through the view's schema.

webargs' documented extension (a parser with `load_json` and `handle_error` of its own), in the place where
flask-smorest documents it. May import `bodies` and `request`.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Request
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from app.http.bodies import read_json
from app.http.request import current


class StrictParser(FlaskParser):
    """Bodies that are read as `read_json` says; what the schema refuses is a plain ValidationError."""

    def get_default_request(self) -> Request:
        return current()

    def load_json(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 - webargs' signature
        return read_json(req)

    def handle_error(
        self,
        error: ValidationError,
        req: Request,  # noqa: ARG002
        schema: Schema,  # noqa: ARG002
        *,
        error_status_code: int | None,  # noqa: ARG002
        error_headers: Mapping[str, str] | None,  # noqa: ARG002
    ) -> NoReturn:
        """webargs has put the messages under the place of the argument, which is always the body."""
        raise ValidationError(error.messages_dict["json"])


class StrictBlueprint(Blueprint):  # type: ignore[misc] # flask-smorest has no types
    """A flask-smorest blueprint whose bodies are read strictly."""

    ARGUMENTS_PARSER = StrictParser()
