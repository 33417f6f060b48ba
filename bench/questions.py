"""What clients ask: requests with the header fields of a browser."""

from __future__ import annotations

HEADERS = {
    "Host": "www.example.com",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
    "Cookie": "session=abcdef0123456789; theme=dark",
}


OF_THE_CLIENT = ("User-Agent", "Cookie")


def fields(close: bool = False, body: int = 0, proxied: bool = False) -> str:
    """The header lines, each with its end; ``body`` is the length of one that follows.

    ``proxied``: without those that tell one client from another.
    """
    common = {name: value for name, value in HEADERS.items() if not (proxied and name in OF_THE_CLIENT)}
    more = {"Content-Length": str(body)} if body else {}
    last = {"Connection": "close"} if close else {}
    return "".join(f"{name}: {value}\r\n" for name, value in (common | more | last).items())


def of_a_proxy(number: int) -> str:
    """The header lines by which one client differs from another, and those that a proxy adds; as wrk.py has them."""
    client = f"203.{number % 113}.{number % 251}.{number % 241}"
    return (
        f"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:{number % 100}.0) Gecko/20100101 Firefox/{number % 97}.0\r\n"
        f"Cookie: session={number:08x}{number * 7:08x}; theme=dark\r\n"
        f"X-Forwarded-For: {client}\r\nX-Forwarded-Proto: https\r\n"
        f"X-Request-Id: {number:08x}-0000-4000-8000-{number:012x}\r\n"
    )


def question(target: str, body: bytes = b"") -> bytes:
    """A whole request."""
    method = "POST" if body else "GET"
    return f"{method} {target} HTTP/1.1\r\n{fields(body=len(body))}\r\n".encode() + body
