"""What schemathesis has to be told of the API: a message is a body of bytes."""

import schemathesis

schemathesis.serializer.alias("message/rfc822", "application/octet-stream")
