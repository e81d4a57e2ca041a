"""URLs without what can be secret in them, for documents, messages and the lock."""

import re

USER = r"([^/?#\s\"'<>]*@)?"
WEB_URL = re.compile(rf"(?P<scheme>https?://){USER}(?P<rest>[^?#]*)", re.DOTALL)
FILE_URL = re.compile(r"file:[^\s\"']*?([^/\s\"']*)(?=[\s\"']|$)")
URL_IN_TEXT = re.compile(
    rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://){USER}(?P<rest>[^?\s\"'<>]*)(?P<query>\?[^\s\"'<>]+)?"
)
HIDDEN_QUERY = "?[masked]"


def show_url(url: str) -> str:
    """A web address without user, password, query and fragment; other URLs as they are.

    Invalid URLs are allowed.
    """
    match = WEB_URL.match(url)
    return match["scheme"] + match["rest"] if match else url


def hide_secrets(text: str) -> str:
    """A text in which URLs have no user, password and query."""
    return URL_IN_TEXT.sub(
        lambda url: url["scheme"] + url["rest"] + (HIDDEN_QUERY if url["query"] else ""), text
    )


def hide_places(text: str) -> str:
    """The same, and of files on this machine only their name."""
    return FILE_URL.sub(r"\1", hide_secrets(text))
