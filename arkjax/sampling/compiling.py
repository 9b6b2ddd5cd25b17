"""How long this process has been compiling: what answers cost must not depend on who came first."""

import threading

import jax

# Lowering to the compiler's language, and the compiler's own work; they do not overlap.
_EVENTS = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_lock = threading.Lock()
_seconds = 0.0
_listening = False


def compile_seconds() -> float:
    """Seconds of all compilations that ended since this was first called, by any thread."""
    global _listening
    with _lock:
        if not _listening:
            jax.monitoring.register_event_duration_secs_listener(_listen)
            _listening = True
        return _seconds


def _listen(event: str, seconds: float, **_: object) -> None:
    global _seconds
    if event in _EVENTS:
        with _lock:
            _seconds += seconds
