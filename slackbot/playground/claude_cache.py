"""Token counts and the prompt cache of the local stand-in for Claude.

A cache that silently never hits is the dearest bug a bot can have, so the stand-in keeps the real
one's rules: which prefix may be written, how far back a breakpoint looks, when an entry dies.
Tokens are an estimate, four characters each; only their proportions mean anything.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

CHARS_PER_TOKEN = 4
IMAGE_TOKENS = 1_568  # the most one image costs up to the 4.6 models
LOOK_BACK_BLOCKS = 20  # per breakpoint, itself included, platform.claude.com prompt caching
TTL_S = {"5m": 300, "1h": 3_600}
PRUNE_ABOVE_ENTRIES = 10_000

Ttl: TypeAlias = Literal["5m", "1h"]
Block: TypeAlias = Mapping[str, Any]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A prompt from its first tool up to and including one block."""

    digest: bytes
    tokens: int
    ttl: Ttl | None
    """Set where the request put a breakpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a prompt costs, and what the cache holds once its answer has begun."""

    at: float
    usage: dict[str, Any]
    entries: tuple[tuple[bytes, Ttl], ...]


def count_tokens(text: str) -> int:
    """The estimate for `text`: four characters a token, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def content_blocks(content: Any) -> Sequence[Block]:
    """`content` as a list of blocks: a plain string is short for one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def list_breakpoints(body: Mapping[str, Any]) -> list[Ttl]:
    """The lifetimes of the cache breakpoints in `body`, in prompt order."""
    return [ttl for ttl in _list_ttls(body) if ttl is not None]


def read_prefixes(body: Mapping[str, Any], *, model: str = "") -> list[Prefix]:
    """Every prefix of the prompt in `body`, shortest first: tools, system, messages."""
    chain = blake2b(model.encode(), digest_size=16)
    prefixes: list[Prefix] = []
    tokens = 0
    for (place, block), ttl in zip(_walk(body), _list_ttls(body), strict=True):
        block_text = _encode({key: value for key, value in block.items() if key != "cache_control"})
        chain.update(f"\0{place}\0{block_text}".encode(errors="surrogatepass"))
        tokens += IMAGE_TOKENS if block.get("type") == "image" else count_tokens(block_text)
        prefixes.append(Prefix(digest=chain.digest(), tokens=tokens, ttl=ttl))
    return prefixes


def _list_ttls(body: Mapping[str, Any]) -> list[Ttl | None]:
    ttls = [_read_ttl(block) for _, block in _walk(body)]
    if ttls:
        ttls[-1] = ttls[-1] or _read_ttl(body)  # a top-level cache_control marks the last block
    return ttls


def _walk(body: Mapping[str, Any]) -> Iterator[tuple[str, Block]]:
    for tool in body.get("tools") or []:
        yield "tool", tool
    for block in content_blocks(body.get("system")):
        yield "system", block
    # A change of these leaves the cached tools and system as they are, but no cached message.
    effort = (body.get("output_config") or {}).get("effort")
    settings = json.dumps([body.get("tool_choice"), body.get("thinking"), effort])
    for message in body.get("messages") or []:
        for block in content_blocks(message["content"]):
            yield f"{message['role']}{settings}", block


def _read_ttl(holder: Mapping[str, Any]) -> Ttl | None:
    control = holder.get("cache_control")
    if not control:
        return None
    return "1h" if control.get("ttl") == "1h" else "5m"


class PromptCache:
    """Which prompt prefixes are known, and until when by `clock`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[float, Ttl]] = {}

    def charge(self, prefixes: Sequence[Prefix], *, minimum_tokens: int) -> Charge:
        """What a prompt costs now; `minimum_tokens` is the shortest prefix its model caches."""
        now = self._clock()
        breakpoints = [
            position
            for position, prefix in enumerate(prefixes)
            if prefix.ttl is not None and prefix.tokens >= minimum_tokens
        ]
        hit = max((self._look_back(prefixes, at, now) for at in breakpoints), default=-1)
        read = prefixes[hit].tokens if hit >= 0 else 0
        written = {"5m": 0, "1h": 0}
        covered = read
        entries: list[tuple[bytes, Ttl]] = []
        for position in breakpoints:
            prefix = prefixes[position]
            known = self._find(prefix.digest, now)
            if position > hit and prefix.ttl is not None:
                written[prefix.ttl] += prefix.tokens - covered
                covered = prefix.tokens
                entries.append((prefix.digest, prefix.ttl))
            elif known is not None:
                entries.append((prefix.digest, known))
        hit_ttl = self._find(prefixes[hit].digest, now) if hit >= 0 else None
        if hit_ttl is not None:
            entries.append((prefixes[hit].digest, hit_ttl))
        usage = {
            "input_tokens": (prefixes[-1].tokens if prefixes else 0) - covered,
            "cache_creation_input_tokens": sum(written.values()),
            "cache_read_input_tokens": read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": written["5m"],
                "ephemeral_1h_input_tokens": written["1h"],
            },
            "output_tokens": 0,
            "service_tier": "standard",
        }
        return Charge(at=now, usage=usage, entries=tuple(entries))

    def remember(self, charge: Charge) -> None:
        """Makes `charge`'s prefixes readable: call it when its answer begins, not before."""
        if len(self._entries) > PRUNE_ABOVE_ENTRIES:
            now = self._clock()
            self._entries = {
                digest: entry for digest, entry in self._entries.items() if entry[0] > now
            }
        for digest, ttl in charge.entries:
            self._entries[digest] = (charge.at + TTL_S[ttl], ttl)

    def _look_back(self, prefixes: Sequence[Prefix], position: int, now: float) -> int:
        for candidate in range(position, max(position - LOOK_BACK_BLOCKS, -1), -1):
            if self._find(prefixes[candidate].digest, now) is not None:
                return candidate
        return -1

    def _find(self, digest: bytes, now: float) -> Ttl | None:
        until, ttl = self._entries.get(digest, (now, "5m"))
        return ttl if until > now else None
