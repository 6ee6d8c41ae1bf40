import random
import re
import time

import pytest

from slackbot.slack.inert import inert
from slackbot.slack.limits import MAX_FALLBACK_BYTES, MAX_MARKDOWN_CHARS, MAX_TEXT_BYTES
from slackbot.slack.markdown import finished, heal, presentable, split
from slackbot.slack.plain_text import fallback, plain_parts

HOSTILE = [
    "hello <!channel> and <@U1>",
    "<https://evil.example|shop.example>",
    "<!here|x> <!subteam^S1> <!date^1^x^https://evil.example|y>",
    "&lt;!channel&gt; &amp;lt;!here&amp;gt; &#60;!everyone&#62;",
    "<\u200b!channel> \uff1c!channel\uff1e <!\u200dhere>",
    "`<!channel>` and ``<@U1>`` and **<!here>** and _<@U2>_",
    "```\n<!channel>\n```\n~~~\n<@U1>\n~~~",
    "[<!channel>](https://evil.example) [shop](<https://evil.example|shop>)",
    "[a <@U1> b](https://shop.example '<!here>')",
    "[shop.example](https://evil.example/?<!channel>)",
    "[shop.example](https://shop.example@evil.example/) <https://evil.example>",
    "[shop\n.example](https://evil.example) [shop.example](\nhttps://evil.example)",
    "[shop.example][1] [1]\n\n[1]: https://evil.example",
    "[[shop.example](https://evil.example)](https://evil.example)",
    "[x]![(https://evil.example)](javascript:a) [x][](a:b)(https://evil.example)",
    "a ` b\n` [shop.example](https://evil.example) `",
    "- ```\n  a\n  ```\n[shop.example](https://evil.example)",
    "- item\n  ```\n  code\n[shop.example](https://evil.example)\n",
    "a `\n\u3000\n` [shop.example](https://evil.example) `",
    "```\n```\xa0\n```\n[shop.example](https://evil.example)\n```",
    "| ` | [shop.example](https://evil.example) ` |\n|---|---|\n",
    "\\` [shop.example](https://evil.example) `",
    "~~~\n```\n~~~\n```\n[shop.example](https://evil.example)\n```",
    "> ```\n[shop.example](https://evil.example)\n> ```",
    "!![shop.example](https://evil.example) <https://a!>[shop.example](https://evil.example)",
    "[shop.example]\u202e(https://evil.example)\r[b\\](https://a.example)](https://evil.example)",
]
ALPHABET = [
    *["word ", "Order 1042. ", "héllo, ", "\n", "\n\n", "- ", "# ", "> ", "  ", "    "],
    *["```", "```py\n", "~~~", "~~~~", "`", "``", "**", "*", "_", "~~", "\\", "|", "!", "&amp;"],
    *["[", "]", "(", ")", "](", "]:", "[a](https://shop.example/x) ", "[b](https://evil.example)"],
    *[f"![c](https://{'d' * 90}.example)", "[g]:", "!", "\r\n", "\t", "```` "],
    *["<", ">", "<!channel>", "<@U1>", "<https://a.example>", "https://b.example/_c_ ", "é", "🧵"],
]


def build_text(random_source: random.Random, *, pieces: int) -> str:
    return "".join(random_source.choice(ALPHABET) for _ in range(pieces))


def build_answer(random_source: random.Random, *, chars: int) -> str:
    """Something like a long answer of Claude's: prose, lists, links and code of all kinds."""
    blocks: list[str] = []
    while sum(map(len, blocks)) < chars:
        words = " ".join(
            random_source.choices(
                ["thread", "a **bold** word.", "[track](https://dhl.example/1)", "a < b", "é🧵"],
                k=random_source.randint(3, 120),
            )
        )
        lines = [f"line {number} ``` ~~~" for number in range(random_source.randint(1, 60))]
        indent = " " * random_source.randint(0, 3)
        mark = random_source.choice("`~") * random_source.randint(3, 6)
        inner = [f"{mark[:-1]}", f"{mark}x", mark.translate({96: 126, 126: 96})]
        code = "\n".join([*lines, *inner, *lines])
        fence = f"{indent}{mark}{random_source.choice(['', 'py', ' js title'])}\n{code}\n{mark}"
        blocks.append(random_source.choice([words, words, fence, f"- {words}\n- {words}"]))
    return "\n\n".join(blocks)


def has_open_fence(part: str) -> bool:
    opened = ""
    for line in part.split("\n"):
        match = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
        if match is None:
            continue
        mark, behind = match.groups()
        if not opened and not (mark[0] == "`" and "`" in behind):
            opened = mark
        elif opened and mark.startswith(opened) and not behind.strip():
            opened = ""
    return opened != ""


def without_spaces(text: str) -> str:
    return re.sub(r"\s+", "", text)


def assert_nothing_lost(text: str, parts: list[str]) -> None:
    """Every part, but for a first and a last line put in for a fence, is the text's next piece."""
    rest = without_spaces(text)
    for number, part in enumerate(parts):
        lines = part.split("\n")
        variants = [
            without_spaces("\n".join(lines[first : len(lines) - last]))
            for last in (0, 1)
            for first in (0, 1)
            if number or not first
        ]
        fitting = [variant for variant in variants if rest.startswith(variant)]
        assert fitting, (number, part[:80], rest[:80])
        rest = rest.removeprefix(max(fitting, key=len))
    assert rest in ("", *(mark * count for mark in "`~" for count in range(3, 10)))


# inert


@pytest.mark.parametrize("text", HOSTILE)
def test_every_prefix_of_a_hostile_text_is_inert(text: str) -> None:
    for end in range(len(text) + 1):
        for shown in (presentable(text[:end]), finished(text[:end])):
            assert "<" not in shown
            for label in re.findall(r"([^\n]*?)\]\(https://evil", shown):
                assert label.endswith("(evil.example)") or "`" in label
            assert not re.search(r"\]:", shown)


def test_random_text_is_inert_at_every_prefix() -> None:
    random_source = random.Random(7)
    for _ in range(25):
        text = build_text(random_source, pieces=40)
        for end in range(len(text) + 1):
            assert "<" not in presentable(text[:end])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (
            "[track it](https://track.royalmail.com/1)",
            "[track it (track.royalmail.com)](https://track.royalmail.com/1)",
        ),
        ("[a](https://A.example:8080/x)", "[a (a.example)](https://A.example:8080/x)"),
        (
            "[shop.example](https://evil.example)",
            "[shop.example (evil.example)](https://evil.example)",
        ),
        ("[a](https://shop.com@evil.com/x)", "[a (evil.com)](https://shop.com@evil.com/x)"),
        (
            "[https://shop.com@evil.com](https://shop.com@evil.com)",
            "[https://shop.com@evil.com (evil.com)](https://shop.com@evil.com)",
        ),
        ("[a](https://\u0430pple.com)", "[a (xn--pple-43d.com)](https://\u0430pple.com)"),
        ("[a](https://xn--pple-43d.com)", "[a (xn--pple-43d.com)](https://xn--pple-43d.com)"),
        ("[a [b] c](https://w.org/a_(b))", "[a [b] c (w.org)](https://w.org/a_(b))"),
        ('[a](https://w.org "title")', "[a (w.org)](https://w.org)"),
        ("[a](<https://w.org/x>)", "[a (w.org)](https://w.org/x)"),
        ("[write](mailto:hi@w.org?subject=x)", "[write (hi@w.org)](mailto:hi@w.org?subject=x)"),
        ("[`a]`](https://w.org)", "[`a]` (w.org)](https://w.org)"),
        (
            f"[a](https://{'b' * 80}.evil.com)",
            f"[a (…{'b' * 50}.evil.com)](https://{'b' * 80}.evil.com)",
        ),
        ("![cat](https://w.org/c.png)", "[cat (w.org)](https://w.org/c.png)"),
        ("[](https://w.org)", "https://w.org"),
        ("[![logo](https://i.org/l.png)](https://w.org)", "[logo (w.org)](https://w.org)"),
    ],
)
def test_a_link_shows_where_it_leads(written: str, shown: str) -> None:
    assert inert(written) == shown


@pytest.mark.parametrize(
    "text",
    [
        "[https://w.org/a](https://w.org/a)",
        "[w.org](https://w.org/some/page)",
        "[**w.org/a**](https://w.org/a/)",
        "[hi@w.org](mailto:hi@w.org)",
        "Q&A: https://w.org/?a=1&b=2 &amp; @channel",
        "> quoted\n> > twice",
        "`[a](https://w.org)` and `d[0](x)`",
        "```md\n[a](https://w.org)\n[1]: https://w.org\n```",
        "values[0]: 3 | [x] done | [1]",
    ],
)
def test_what_deceives_nobody_stays_as_it_is(text: str) -> None:
    assert inert(text) == text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](javascript:alert(1))", "a (javascript:alert(1))"),
        ("[a](slack://open)", "a (slack://open)"),
        ("[a](https://shop.com&commat;evil.com)", "a (https://shop.com&commat;evil.com)"),
        ("[a](https://shop.com\\@evil.com)", "a (https://shop.com\\@evil.com)"),
        ("[a](https://evil.com|shop)", "a (https://evil.com|shop)"),
        ("[a](https://\ufdfa.com)", "a (https://\ufdfa.com)"),
        ("[a](/orders)", "[a] (/orders)"),
        ("[a][1]\n\n[1]: https://w.org", "[a][1]\n\n[1] https://w.org"),
        ("[a\nb](https://w.org)", "[a\nb] (https://w.org)"),
        ("[[a](https://u.org)](https://w.org)", "[a (u.org)](https://u.org) (https://w.org)"),
        ("x<https://w.org>. <hi@w.org>", "x https://w.org. hi@w.org"),
    ],
)
def test_other_links_become_plain_text(written: str, shown: str) -> None:
    assert inert(written) == shown


# heal


@pytest.mark.parametrize(
    ("unfinished", "healed"),
    [
        ("```py\nx = 1", "```py\nx = 1\n```"),
        ("  ~~~~\nx\n", "  ~~~~\nx\n  ~~~~"),
        ("Run:\n\n```py", "Run:"),
        ("```\nx\n``", "```\nx\n```"),
        ("```", ""),
        ("see [track it](htt", "see track it"),
        ("see [track", "see track"),
        ("see ![cat](https://w.org/(c", "see cat"),
        ("**see [track** it](", "**see track** it"),
        ("so **bold wo", "so **bold wo**"),
        ("so **bold*", "so **bold**"),
        ("so **", "so"),
        ("**so** * *", "**so**"),
        ("*a _b", "*a _b_*"),
        ("~~old", "~~old~~"),
        ("use `pip", "use `pip`"),
        ("use ``a `b`", "use ``a `b``"),
        ("use `", "use"),
        ("**`a` and `b", "**`a` and `b`**"),
        ("hi <!chan", "hi "),
        ("Above\n-", "Above"),
    ],
)
def test_what_is_half_written_is_closed_or_held_back(unfinished: str, healed: str) -> None:
    assert heal(unfinished) == healed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plain words, 2*3 = 6, snake_case, ~5 days, 5 * 4.",
        "**bold** *it* _it_ ~~old~~ `code` ``a ` b`` ***both***",
        "- **Item:** text [a](https://w.org/a_(b)) [x] [1]\n* two",
        "```py\nx = '`'\n```",
        "````\n```\n````\n",
        "Above\n\n---",
        "| a | b |\n|---|---|\n| **1** | 2 |",
        "https://w.org/*a_b",
        r"\*not bold, \[no link, \`no code",
    ],
)
def test_a_complete_text_stays_as_it_is(text: str) -> None:
    assert heal(text) == text


def test_no_prefix_is_left_with_an_open_fence() -> None:
    answer = build_answer(random.Random(1), chars=3_000)

    for end in range(len(answer)):
        assert not has_open_fence(heal(answer[:end]))


# split


@pytest.mark.parametrize("seed", range(8))
def test_a_long_answer_is_cut_into_parts_that_fit_and_lose_nothing(seed: int) -> None:
    text = build_answer(random.Random(seed), chars=16_000)

    for max_size in (400, 1_000, 4_000, MAX_MARKDOWN_CHARS):
        parts = split(text, max_size=max_size)
        assert max(len(finished(part)) for part in parts) <= max_size
        assert max(len(presentable(part)) for part in parts) <= max_size
        assert not any(has_open_fence(part) for part in parts[:-1])
        assert_nothing_lost(text, parts)


def test_random_text_is_cut_into_parts_that_fit() -> None:
    random_source = random.Random(3)
    for _ in range(60):
        text = build_text(random_source, pieces=600)
        for part in split(text, max_size=400):
            assert len(finished(part)) <= 400
            assert len(presentable(part)) <= 400


@pytest.mark.parametrize("seed", range(4))
def test_all_parts_but_the_last_are_final_while_an_answer_grows(seed: int) -> None:
    random_source = random.Random(seed)
    for text in (
        build_answer(random_source, chars=1_500),
        build_text(random_source, pieces=250),
        "x" * 450 + "<" * 150 + "[a](https://w.org) " * 20 + "`" * 450,
    ):
        before: list[str] = []
        for end in range(len(text) + 1):
            parts = split(text[:end], max_size=400)
            assert len(parts) >= len(before)
            assert parts[: len(before) - 1] == before[:-1]
            before = parts


def test_a_cut_is_made_between_paragraphs() -> None:
    paragraphs = [f"{number} {'word ' * 30}".strip() for number in range(10)]

    parts = split("\n\n".join(paragraphs), max_size=500)

    assert parts[0] == "\n\n".join(paragraphs[:3])
    assert "\n\n".join(parts) == "\n\n".join(paragraphs)


def test_a_single_long_line_is_cut_between_sentences_and_never_inside_a_link() -> None:
    sentences = split("One two three four. " * 60, max_size=400)
    links = split("[a b c](https://w.org/d) " * 60, max_size=400)

    assert all(part.endswith(".") for part in sentences)
    assert all(part.startswith("[a") and part.endswith(")") for part in links)


def test_a_fence_cut_in_two_is_closed_and_reopened() -> None:
    code = "\n".join(f"line {number}" for number in range(100))

    parts = split(f"Look:\n\n ~~~~ py x\n{code}\n~~~\n~~~~\n\nDone.", max_size=400)

    assert parts[0].startswith("Look:\n\n ~~~~ py x\nline 0\n")
    assert parts[0].endswith("\n ~~~~")
    assert all(part.startswith(" ~~~~ py x\nline") for part in parts[1:])
    assert parts[-1].endswith("~~~\n~~~~\n\nDone.")


def test_what_fits_is_one_part_and_nothing_is_none() -> None:
    assert split("Hello\n") == ["Hello"]
    assert split("x" * 11_400) == ["x" * 11_400]
    assert split(" \n\n ") == []


# Without markdown


@pytest.mark.parametrize(
    ("markdown", "plain"),
    [
        ("## Your **order**", "Your order"),
        ("* one\n- two", "• one\n• two"),
        ("[track](https://w.org/a__b__c) _it_", "track (https://w.org/a__b__c) it"),
        ("[w.org](https://w.org) ![cat](https://i.org)", "https://w.org cat (https://i.org)"),
        ("[hi@w.org](mailto:hi@w.org)", "hi@w.org"),
        ("**_both_** ~~old~~ snake_case 2*3*4", "both old snake_case 2*3*4"),
        ("```py\nx = a**b**c & d\n```\nthen `**`", "x = a**b**c &amp; d\nthen `**`"),
        ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@U1&gt;"),
    ],
)
def test_plain_text_has_no_marks_and_is_escaped(markdown: str, plain: str) -> None:
    assert fallback(markdown) == plain
    assert plain_parts(markdown) == [plain]


@pytest.mark.parametrize("text", ["é🧵" * 4_000, "<&>" * 4_000, "word <b> " * 2_000])
def test_a_fallback_that_is_cut_fits_and_says_so(text: str) -> None:
    for max_bytes in (*range(20, 60), MAX_FALLBACK_BYTES):
        cut = fallback(text, max_bytes=max_bytes)
        assert len(cut.encode()) <= max_bytes
        assert cut.endswith("…")
        assert not re.search(r"&(?!amp;|lt;|gt;)", cut)


@pytest.mark.parametrize("seed", range(4))
def test_text_only_parts_hold_the_whole_answer(seed: int) -> None:
    text = build_answer(random.Random(seed), chars=16_000)

    parts = plain_parts(text)

    whole = fallback(text, max_bytes=10**6)
    assert without_spaces("".join(parts)) == without_spaces(whole)
    assert max(len(part.encode()) for part in parts) <= MAX_TEXT_BYTES
    assert not any(re.search(r"&(?!amp;|lt;|gt;)|[<>]", part) for part in parts)


# Time


@pytest.mark.parametrize(
    "piece",
    [
        *["<", "[", "](", "[a](", "`", "` ``", "*a ", "**", "_a", "[a](x ", "![", "\\", "[a](x ("],
        *["(", "\n", "[[a](https://w.org)", "<https://", "](((", "~~a ", "\n```", "a\n", "``` ` "],
        *['[a](x "', "\r", "&", "[a](https://w.org)", "* ", "**a", "| `", "!", "]:", "https://"],
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (15_000 // len(piece))
    started = time.process_time()

    for part in split(text):
        presentable(part)
    fallback(text)

    assert time.process_time() - started < 1
