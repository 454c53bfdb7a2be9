"""The version of this release, the only place that states it.

Also the version of the API, in the words of Semantic Versioning: the first number changes when an existing
client would no longer be understood.
"""

from typing import Final

VERSION: Final = "0.2.0"
