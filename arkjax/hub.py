"""Whether the Hugging Face Hub can be reached at all, found out in seconds."""

import errno
import socket
import time

_SECONDS = 10.0
_WAIT = 1.0
_NO_WAY = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)


def check_reachable() -> None:
    """Ask for the Hub once, and once more a second later, where nobody is there to answer.

    The library's own downloads try for half a minute whatever the reason is. That helps where a
    network is slow or drops connections, which is left to them; not where there is none.

    Raises:
      ConnectionError: if the Hub's name does not resolve, there is no way to it, or it refuses to
        talk.
    """
    import huggingface_hub

    endpoint = huggingface_hub.HfApi().endpoint
    for last in (False, True):
        try:
            huggingface_hub.get_session().head(endpoint, timeout=_SECONDS)
            return
        except Exception as error:  # Of the network and of its libraries; many kinds.
            reason = _no_way(error)
            if reason is None:
                return
            if last:
                raise ConnectionError(f"{endpoint} cannot be reached, {reason}") from error
        time.sleep(_WAIT)


def _no_way(error: BaseException | None) -> str | None:
    """What the system says of a place that nothing can be sent to; None of other errors."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return f"its name does not resolve: {error.strerror}"
        if isinstance(error, OSError) and error.errno in _NO_WAY:
            return (error.strerror or str(error)).lower()
        error = error.__cause__ or error.__context__
    return None
