"""Slack's numbers, each once, with where it comes from.

"docs" is docs.slack.dev. What Slack does not publish is marked as ours or as measured by others.
"""

# Sizes

MAX_MARKDOWN_CHARS = 11_500
"""In all `markdown` blocks of one payload.

Slack takes 12,000: docs, block-kit/blocks/markdown-block.
"""

MAX_FALLBACK_BYTES = 3_000
"""In the `text` beside a block, UTF-8. Ours: only notifications and old clients show it."""

MAX_TEXT_BYTES = 3_900
"""In a message that is `text` only, UTF-8, escaped.

`chat.update` refuses or silently shortens more than 4,000 (docs, methods/chat.update: characters;
bytes by openclaw/openclaw#128613), and `chat.postMessage` splits what is longer.
"""

# Rates, each for one method in one workspace: docs, apis/web-api/rate-limits

EDITS_PER_MINUTE = 50
"""`chat.update`, tier 3, shared by every answer in flight."""

MAX_EDIT_BURST = 8
"""Edits without a pause. Slack does not say how many it takes; the number is ours."""

MAX_EDITS_IN_FLIGHT = 1
"""Ours: a 429 answers every call under way, and one is enough to learn from."""

POSTS_PER_SECOND = 1
"""`chat.postMessage`, in one channel. Several hundred a minute in the whole workspace."""

MAX_POST_BURST = 3
"""Posts in one channel without a pause. Slack allows "short bursts"; the number is ours."""

# Times

STATUS_RENEWAL_S = 90
"""Ours: a status goes away by itself after two minutes (docs,
methods/assistant.threads.setStatus), so there is time for one failed renewal."""

SIGNATURE_LIFETIME_S = 300
"""An older request is refused: docs, authentication/verifying-requests-from-slack."""
