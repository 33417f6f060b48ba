"""An application that looks for its client behind two proxies by itself, as Flask's documentation advises."""

from __future__ import annotations

from raw import unchecked
from werkzeug.middleware.proxy_fix import ProxyFix

app = ProxyFix(unchecked, x_for=2)
