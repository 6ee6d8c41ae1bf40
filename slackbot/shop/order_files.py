"""Orders from a file: CSV as spreadsheets write it, or JSON. What is wrong is said row by row."""

import csv
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from slackbot.domain.orders import STATUSES, Order, normalised_order_id
from slackbot.errors import ImportFileError

COLUMNS = ("order_id", "status", "item", "eta", "tracking", "customer_email")
REQUIRED_COLUMNS = ("order_id", "status", "item")
MAX_FIELD_CHARS = 500
MAX_ID_CHARS = 32
MAX_TRACKING_CHARS = 64
MAX_SHOWN_CHARS = 60

_DELIMITERS = ",;\t"
_NOTHING = frozenset({"", "-", "none"})
_ORDER_ID = re.compile(r"[A-Z]+-[0-9]+")
_TRACKING = re.compile(r"[A-Z0-9-]+")
_EMAIL = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\".]+(\.[^\s@,;<>\".]+)+")


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row is no order. `line` is where it begins in the file; in JSON its place in the list.

    Both count from 1.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class OrderFile:
    """The good rows of a file as orders, and what is wrong with the others."""

    orders: tuple[Order, ...]
    problems: tuple[RowProblem, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, Any]


_Rows: TypeAlias = Iterator[_Row | RowProblem]


def read_orders(path: Path) -> OrderFile:
    """The orders in the file at `path`: CSV, JSON or JSON Lines, by its suffix or else its content.

    CSV has a header row with COLUMNS in any order and case, between commas, semicolons or tabs;
    JSON is a list of objects, or an object that has one under `orders`. Columns that are not in
    COLUMNS are ignored. Runs of white space within a value become one space.

    Raises:
        ImportFileError: it cannot be read as a table at all.
    """
    try:
        text = _decode(path.read_bytes())
        read_rows = _reader_for(path, text)
        place_word = "item" if read_rows is _read_json else "line"
        return _check_rows(read_rows(text), place_word=place_word)
    except OSError as error:
        raise ImportFileError(f"{str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        raise ImportFileError(f"{str(path)!r}: {error}") from error


def _decode(content: bytes) -> str:
    has_utf_16_mark = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if has_utf_16_mark else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8 (Excel: save it as “CSV UTF-8”)") from None
    if "\0" in text:
        raise ValueError("is not text: it has zero bytes in it")
    if not text.strip():
        raise ValueError("is empty")
    return text


def _reader_for(path: Path, text: str) -> Callable[[str], _Rows]:
    match path.suffix.casefold():
        case ".json":
            return _read_json
        case ".jsonl" | ".ndjson":
            return _read_json_lines
        case ".csv" | ".tsv":
            return _read_csv
        case _:
            return _read_json if text.lstrip()[0] in "[{" else _read_csv


def _read_csv(text: str) -> _Rows:
    delimiter = max(_DELIMITERS, key=lambda one: len(set(COLUMNS) & set(_read_header(text, one))))
    columns = _read_header(text, delimiter)
    _check_columns(columns)
    for line, cells in itertools.islice(_split_csv(text, delimiter), 1, None):
        if isinstance(cells, str):
            yield RowProblem(line, cells)
        elif len(cells) != len(columns):
            reason = f"has {len(cells)} cells where the header has {len(columns)}"
            yield RowProblem(line, f"{reason} (a value with {delimiter!r} in it needs quotes)")
        else:
            yield _Row(line, dict(zip(columns, cells, strict=True)))


def _read_header(text: str, delimiter: str) -> list[str]:
    _, cells = next(_split_csv(text, delimiter))
    return [] if isinstance(cells, str) else [_column_name(cell) for cell in cells]


def _column_name(cell: str) -> str:
    return "_".join(cell.casefold().split())


def _check_columns(columns: Sequence[str]) -> None:
    if missing := [name for name in REQUIRED_COLUMNS if name not in columns]:
        raise ValueError(f"has no column {', '.join(missing)} (its header: {_shown(columns)})")
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise ValueError(f"has the column {', '.join(twice)} more than once")


def _split_csv(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Each row that is not blank with the line it begins on; a reason where it cannot be split."""
    # Strict: otherwise a quote that is never closed would swallow the rest of the file in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _explain(error)
        else:
            if any(cell.strip() for cell in cells):
                yield line, cells


def _explain(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "opens a quote that is never closed; nothing after it was read"
    return f"cannot be split into cells: {error}"


def _read_json(text: str) -> _Rows:
    match _load_json(text):
        case list(items) | {"orders": list(items)}:
            for place, item in enumerate(items, start=1):
                yield _read_item(place, item)
        case _:
            raise ValueError('is neither a list of orders nor an object like {"orders": […]}')


def _read_json_lines(text: str) -> _Rows:
    for line, one in enumerate(io.StringIO(text), start=1):
        if not one.strip():
            continue
        try:
            item = _load_json(one)
        except ValueError as error:
            yield RowProblem(line, str(error))
        else:
            yield _read_item(line, item)


def _load_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"is not JSON: {error.msg}, {where}") from error
    except RecursionError as error:
        raise ValueError("is not JSON of ours: nested too deeply") from error


def _read_item(line: int, item: Any) -> _Row | RowProblem:
    if not isinstance(item, dict):
        return RowProblem(line, f"is no object but {_shown(item)}")
    return _Row(line, {_column_name(name): value for name, value in item.items()})


def _check_rows(rows: _Rows, *, place_word: str) -> OrderFile:
    orders: list[Order] = []
    problems: list[RowProblem] = []
    places: dict[str, int] = {}
    for row in rows:
        checked = _read_order(row) if isinstance(row, _Row) else row
        if isinstance(checked, RowProblem):
            problems.append(checked)
        elif first := places.get(checked.order_id):
            reason = f"order_id {checked.order_id!r} is in {place_word} {first} already"
            problems.append(RowProblem(row.line, reason))
        else:
            places[checked.order_id] = row.line
            orders.append(checked)
    return OrderFile(tuple(orders), tuple(problems))


def _read_order(row: _Row) -> Order | RowProblem:
    cells = _CellReader(row.cells)
    order = Order(
        order_id=cells.require("order_id", _order_id),
        status=cells.require("status", _status),
        item=cells.require("item", str),
        eta=cells.find("eta", str),
        tracking=cells.find("tracking", _tracking),
        customer_email=cells.find("customer_email", _email),
    )
    return RowProblem(row.line, "; ".join(cells.problems)) if cells.problems else order


class _CellReader:
    """Reads the cells of one row and collects everything that is wrong with them."""

    def __init__(self, cells: Mapping[str, Any]) -> None:
        self._cells = cells
        self.problems: list[str] = []

    def require(self, column: str, parse: Callable[[str], str]) -> str:
        """The value in `column`, which must have one."""
        before = len(self.problems)
        text = self.find(column, parse)
        if text is None and len(self.problems) == before:
            self.problems.append(f"{column} is missing")
        return text or ""

    def find(self, column: str, parse: Callable[[str], str]) -> str | None:
        """The value in `column`, or None where it says that there is none."""
        value = self._cells.get(column)
        try:
            text = _clean(value)
            return None if text.casefold() in _NOTHING else parse(text)
        except ValueError as error:
            self.problems.append(f"{column} {_shown(value)} {error}")
            return None


def _clean(value: Any) -> str:
    text = _as_text(value)
    if any(_is_unreadable(character) for character in text):
        raise ValueError("has control characters in it")
    text = " ".join(text.split())
    if len(text) > MAX_FIELD_CHARS:
        raise ValueError(f"has {len(text)} characters, more than {MAX_FIELD_CHARS}")
    return text


def _as_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            raise ValueError("is not text")
        case str() | int():
            return str(value)
        case _:
            raise ValueError("is not text")


def _is_unreadable(character: str) -> bool:
    return character not in "\t\r\n" and unicodedata.category(character) in {"Cc", "Cs"}


def _order_id(text: str) -> str:
    order_id = normalised_order_id(text)
    if not _ORDER_ID.fullmatch(order_id) or len(order_id) > MAX_ID_CHARS:
        raise ValueError("does not look like 'ORD-1001'")
    return order_id


def _status(text: str) -> str:
    if text.casefold() not in STATUSES:
        raise ValueError(f"is none of {', '.join(STATUSES)}")
    return text.casefold()


def _tracking(text: str) -> str:
    number = text.upper()
    if not _TRACKING.fullmatch(number) or len(number) > MAX_TRACKING_CHARS:
        raise ValueError("is no tracking number (letters, digits and hyphens, without spaces)")
    return number


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise ValueError("is no e-mail address")
    return text.casefold()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
