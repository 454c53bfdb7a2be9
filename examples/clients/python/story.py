"""Registers an address, hands in the number and gets the token back, with a client made from /openapi.json.

Usage: CEDULA_KEY=cedula_... python story.py http://127.0.0.1:8000 ada@example.com
"""

import os
import sys
import uuid

from cedulaclient import AuthenticatedClient
from cedulaclient.api.users import register_user, verify_number
from cedulaclient.models import (
    ProblemAnswer,
    ProblemAnswerType,
    RegistrationAnswer,
    RegistrationRequest,
    VerificationAnswer,
    VerificationRequest,
)

url, email = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=os.environ.get("CEDULA_KEY", ""))

registered = register_user.sync(
    client=client,
    body=RegistrationRequest(email=email, token="order 4711"),
    idempotency_key=str(uuid.uuid4()),  # the same for every repetition of this request
)
if not isinstance(registered, RegistrationAnswer):
    sys.exit(f"Not registered: {registered}")
print(f"{registered.delivery.value}, until {registered.expires_at}")

while True:
    typed = input("The number in the mail: ")
    answer = verify_number.sync(client=client, body=VerificationRequest(email=email, number=typed))
    if isinstance(answer, VerificationAnswer):
        print(f"Confirmed: {answer.token}")
        break
    if not isinstance(answer, ProblemAnswer):
        sys.exit("No answer that the document knows")
    if answer.type_ is ProblemAnswerType.MISTYPED_NUMBER:
        print("Mistyped; it cost no try")
    elif answer.type_ is ProblemAnswerType.VERIFICATION_FAILED:
        print(f"Wrong; tries left: {answer.tries_left}")
    else:
        sys.exit(f"{answer.status} {answer.title}")
