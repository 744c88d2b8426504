"""A browser without a window: it follows redirects with cookies."""

from __future__ import annotations

import http.cookiejar
import urllib.error
import urllib.request
from urllib.parse import urljoin


class _Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def visit(address: str, callback: str | None = None) -> str:
    """Visits an address, and gives the address at which the redirects end: that of `callback`, which is not visited, or
    that of a page."""
    opener = urllib.request.build_opener(_Stays, urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    for _ in range(20):
        if callback and address.partition("?")[0] == callback:
            return address
        try:
            with opener.open(address, timeout=60) as response:
                if callback:
                    raise AssertionError(f"{address} answers {response.status} before {callback}")
                return address
        except urllib.error.HTTPError as error:
            if "Location" not in error.headers:
                raise AssertionError(f"{address} answers {error.code}: {error.read().decode()}") from None
            address = urljoin(address, error.headers["Location"])
    raise AssertionError(f"{address} redirects without end")
