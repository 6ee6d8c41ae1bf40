"""What of Claude's markdown is code: fences over several lines, spans within one.

Whatever cuts, mends or rewrites the text asks here, so that all agree on where code begins and
ends.
"""

import re
from collections import defaultdict, deque
from dataclasses import dataclass

BLANKS = " \t"  # all that markdown takes for an empty line, or nothing behind a fence
ESCAPABLE = r"""\\[!-/:-@\[-`{-~]"""  # a backslash and the mark it disarms
_MAX_FENCE_CHARS = 32  # a longer run of ` or ~ is no fence to us, so a fence always fits a part
_MAX_INFO_CHARS = 40  # the same for what stands behind it
MAX_CLOSING_CHARS = _MAX_FENCE_CHARS + 4  # newline and indent included
_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The first line of a fenced block: all of it, its indent, and its run of ` or ~."""

    line: str
    indent: str
    mark: str

    @property
    def closing(self) -> str:
        """The line that ends the block."""
        return self.indent + self.mark


def fence_after(fence: Fence | None, line: str) -> Fence | None:
    """The fence that is open after `line`, when `fence` was open before it."""
    match = _FENCE.fullmatch(line)
    if match is None:
        return fence
    indent, mark, behind = match.groups()
    if fence is not None:
        closes = mark.startswith(fence.mark) and not behind.strip(BLANKS)
        return None if closes else fence
    too_long = len(mark) > _MAX_FENCE_CHARS or len(behind) > _MAX_INFO_CHARS
    if too_long or (mark[0] == "`" and "`" in behind):
        return None
    return Fence(line=line, indent=indent, mark=mark)


def closing_size(fence: Fence | None, line: str) -> int:
    """What closing a fence may need when the part ends in `line`."""
    if fence is not None:
        return len(fence.closing) + 1
    match = _FENCE.match(line)
    return min(len(match[2]), _MAX_FENCE_CHARS) + 4 if match else 0


@dataclass(frozen=True, slots=True)
class CodeSpans:
    """Inline code of one line: where spans start → end, and the first backticks without a pair."""

    ends: dict[int, int]
    stray: re.Match[str] | None


def find_code_spans(line: str) -> CodeSpans:
    """The inline code of `line`, which is in no fence."""
    runs = [run for run in re.finditer(rf"{ESCAPABLE}|`+", line) if run[0][0] == "`"]
    later: defaultdict[int, deque[int]] = defaultdict(deque)
    for number, run in enumerate(runs):
        later[len(run[0])].append(number)
    ends: dict[int, int] = {}
    stray, number = None, 0
    while number < len(runs):
        run = runs[number]
        partners = later[len(run[0])]
        while partners and partners[0] <= number:
            partners.popleft()
        if partners:
            number = partners[0]
            ends[run.start()] = runs[number].end()
        else:
            stray = stray or run
        number += 1
    return CodeSpans(ends, stray)
