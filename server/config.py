"""`ServerConfig`: every knob of the HTTP server, with its default. The command line reads these.

The engine's own knobs are in `engine.config`; this one holds nothing about models or devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How the server behaves. See each field's `help` metadata for its meaning and unit."""

    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on"})
    port: int = field(default=8000, metadata={"help": "port to listen on; 0 takes a free one"})
    api_key: str | None = field(
        default=None, metadata={"help": "bearer key clients must send; also STRETTO_API_KEY"}
    )
    open_listing: bool = field(
        default=False, metadata={"help": "list voices and models without a key (Open WebUI)"}
    )
    cors_origin: str | None = field(
        default=None, metadata={"help": "origin browsers may call from, or *; off by default"}
    )
    served_model_name: str | None = field(
        default=None, metadata={"help": "name clients use for the model"}
    )
    voice_aliases: str = field(
        default="", metadata={"help": "more names for voices, such as alloy=amy,echo=ben"}
    )
    voices_dir: str | None = field(
        default=None, metadata={"help": "folder of uploaded voices; a user data folder if unset"}
    )
    max_input_chars: int = field(default=20_000, metadata={"help": "longest text of one request"})
    max_body_mib: int = field(default=16, metadata={"help": "largest request body, MiB"})
    max_reference_mib: int = field(default=10, metadata={"help": "largest reference file, MiB"})
    max_reference_s: float = field(
        default=60.0, metadata={"help": "longest reference recording, seconds"}
    )
    max_batch_items: int = field(default=256, metadata={"help": "most items in one batch call"})
    max_queue_size: int = field(
        default=256, metadata={"help": "requests that may wait beyond those that run"}
    )
    single_flight: bool = field(
        default=True, metadata={"help": "compute equal requests that arrive together once"}
    )
    cache_mib: int = field(
        default=0, metadata={"help": "memory for finished seeded requests, MiB; 0 is off"}
    )
    max_buffered_mib: int = field(
        default=1024, metadata={"help": "audio held for slow readers, all together, MiB"}
    )
    stall_timeout_s: float = field(
        default=120.0, metadata={"help": "seconds without audio after which a request fails"}
    )
    write_timeout_s: float = field(
        default=60.0, metadata={"help": "seconds a client may take no bytes before it is cut"}
    )
    drain_timeout_s: float = field(
        default=60.0, metadata={"help": "seconds running streams may take after SIGTERM"}
    )
    encoder_threads: int = field(
        default=0, metadata={"help": "threads that encode audio; 0 means one per core"}
    )
