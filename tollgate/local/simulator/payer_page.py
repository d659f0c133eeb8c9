"""The page of a 3-D Secure challenge: a payer says yes or no to one charge. Pure.

Nothing on it comes from a client but through `escape`; it refers to no other host.
"""

from __future__ import annotations

from html import escape
from typing import Final

from tollgate.local.simulator.charges import Charge

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Confirm a payment</title>
<h1>{merchant}: {amount} {currency} (minor units)</h1>
{content}
</html>
"""
_FORM: Final = """<form method="post">
<button name="outcome" value="approve">Confirm the payment</button>
<button name="outcome" value="decline">Decline it</button>
</form>"""


def payer_page(charge: Charge) -> bytes:
    """What is to be decided, or how it was."""
    waits = charge["status"] == "requires_action"
    content = (
        _FORM if waits else f"<p>The payment is {escape(charge['status'])}. You may close this page.</p>"
    )
    shown = {name: escape(str(charge[name])) for name in ("merchant", "amount", "currency")}
    return _PAGE.format(content=content, **shown).encode()
