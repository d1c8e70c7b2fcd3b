"""The contract of a service, kept in a file: what its bytes were, so that a change says what it breaks, and for whom.

``docs/contract.md`` says what is compared and what counts as a break.
"""

from wireproto.contract.changes import LEVELS, Change
from wireproto.contract.compare import compare
from wireproto.contract.lock import Golden, Lock, fingerprint
from wireproto.contract.samples import samples

__all__ = ["LEVELS", "Change", "Golden", "Lock", "compare", "fingerprint", "samples"]
