"""Credentials in the URLs of blob stores, which can be chained, for example simplecache::sftp://user:password@host."""

import re
from urllib.parse import parse_qsl, urlsplit

# The user and the password in a URL. A password can contain "@" if it is not quoted.
_CREDENTIALS = re.compile(r"(://[^:@/?#]*):[^/?#]*@")
_QUERY = re.compile(r"\?.*?(?=::|$)")
_SECRET_KEY = re.compile(r"(password|passphrase|secret|token|key|signature|sig)$", re.IGNORECASE)


def without_credentials(url: str) -> str:
    """Return the URL of a blob store for a log, without its password and the values of its parameters."""
    return _QUERY.sub("?***", _CREDENTIALS.sub(r"\1:***@", url))


def has_credentials(url: str) -> bool:
    """Whether the URL of a blob store contains a password or another secret, for example an access key."""
    parameters = (key for part in url.split("::") for key, _ in parse_qsl(urlsplit(part).query, keep_blank_values=True))
    return bool(_CREDENTIALS.search(url)) or any(map(_SECRET_KEY.search, parameters))
