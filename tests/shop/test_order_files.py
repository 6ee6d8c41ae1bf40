import codecs
import json
from pathlib import Path

import pytest

from slackbot.domain.orders import SAMPLE_ORDERS, Order
from slackbot.errors import ImportFileError
from slackbot.shop.order_files import OrderFile, RowProblem, read_orders

HEADER = "order_id,status,item,eta,tracking,customer_email\n"
GOOD_ROW = "ORD-1,shipped,Tee,,,\n"
SAMPLES = HEADER + (
    'ORD-1001,shipped,"Sunset Gradient Tee (M, Orange)",2 Apr,RM493827651GB,jo@example.com\n'
    'ORD-1002,processing,"Wave Print Crop Tee (S, Slate)",4 Apr,none,kit@example.com\n'
    'ORD-1003,delivered,"Midnight Pocket Tee (L, Black)",none,RM381726495GB,sam@example.com\n'
)


def read(tmp_path: Path, content: str | bytes, name: str = "orders.csv") -> OrderFile:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_orders(path)


def build_order(
    order_id: str = "ORD-1",
    status: str = "shipped",
    item: str = "Tee",
    eta: str | None = None,
    tracking: str | None = None,
    customer_email: str | None = None,
) -> Order:
    return Order(
        order_id=order_id,
        status=status,
        item=item,
        eta=eta,
        tracking=tracking,
        customer_email=customer_email,
    )


def test_the_samples_as_a_csv_are_read_as_the_sample_orders(tmp_path: Path) -> None:
    assert read(tmp_path, SAMPLES) == OrderFile(SAMPLE_ORDERS, ())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("item,order_id,status\nTee,ORD-1,shipped\n", id="columns in another order"),
        pytest.param("Order_ID,STATUS,Item\nORD-1,shipped,Tee\n", id="columns in capitals"),
        pytest.param("Order ID, Status ,Item\nORD-1,shipped,Tee\n", id="columns with spaces"),
        pytest.param("order_id;status;item\nORD-1;shipped;Tee\n", id="semicolons"),
        pytest.param("order_id\tstatus\titem\nORD-1\tshipped\tTee\n", id="tabs"),
        pytest.param("order_id,status,item\r\nORD-1,shipped,Tee\r\n", id="Windows line ends"),
        pytest.param("order_id,status,item\rORD-1,shipped,Tee\r", id="old line ends"),
        pytest.param("order_id,status,item\nORD-1,shipped,Tee", id="no line end at the end"),
        pytest.param("\n\norder_id,status,item\n\nORD-1,shipped,Tee\n,,\n", id="blank rows"),
        pytest.param('"order_id","status","item"\n"ORD-1","shipped","Tee"\n', id="quotes"),
        pytest.param("order_id,status,item,price\nORD-1,shipped,Tee,29\n", id="an extra column"),
        pytest.param("order_id,status,item,,\nORD-1,shipped,Tee,,\n", id="nameless columns"),
        pytest.param(" order_id,status,item\n ord-1 ,SHIPPED, Tee \n", id="spaces and case"),
    ],
)
def test_a_csv_is_read_however_a_spreadsheet_writes_it(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == OrderFile((build_order(),), ())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("orders.json", '[{"order_id": "ORD-1", "status": "shipped", "item": "Tee"}]'),
        ("orders.JSON", '{"orders": [{"Order ID": "ord-1", "STATUS": "Shipped", "item": "Tee"}]}'),
        ("orders.json", '[{"order_id": "ORD-1", "status": "shipped", "item": "Tee", "eta": null}]'),
        ("orders.jsonl", '\n{"order_id": "ORD-1", "status": "shipped", "item": "Tee"}\n'),
        ("orders", ' \n[{"order_id": "ORD-1", "status": "shipped", "item": "Tee"}]'),
        ("export.txt", '{"orders": [{"order_id": "ORD-1", "status": "shipped", "item": "Tee"}]}'),
        ("export.txt", HEADER + GOOD_ROW),
        ("orders", HEADER + GOOD_ROW),
    ],
)
def test_the_format_goes_by_the_suffix_or_else_by_the_content(
    tmp_path: Path, name: str, content: str
) -> None:
    assert read(tmp_path, content, name) == OrderFile((build_order(),), ())


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_utf_8_and_marked_utf_16_are_read(tmp_path: Path, mark: bytes, encoding: str) -> None:
    content = HEADER + "ORD-1,shipped,Crème Tee 🧵,,,\n"

    found = read(tmp_path, mark + content.encode(encoding))

    assert found == OrderFile((build_order(item="Crème Tee 🧵"),), ())


@pytest.mark.parametrize("nothing", ["", " ", "-", "none", "None", "NONE"])
def test_nothing_has_several_spellings(tmp_path: Path, nothing: str) -> None:
    found = read(tmp_path, HEADER + f"ORD-1,shipped,Tee,{nothing},{nothing},{nothing}\n")

    assert found == OrderFile((build_order(),), ())


@pytest.mark.parametrize(
    ("row", "order"),
    [
        ("ORD-1,shipped,Tee,next week,,", build_order(eta="next week")),
        ("ORD-1,shipped,Tee,,rm493827651gb,", build_order(tracking="RM493827651GB")),
        ("ORD-1,shipped,Tee,,AB-12,", build_order(tracking="AB-12")),
        ("ORD-1,shipped,Tee,,, Jo@Example.COM ", build_order(customer_email="jo@example.com")),
        ('ORD-1,shipped,"A ""5"" tee",,,', build_order(item='A "5" tee')),
        ('ORD-1,shipped,"Tee,\n\n  soft",,,', build_order(item="Tee, soft")),
    ],
)
def test_values_are_brought_into_one_shape(tmp_path: Path, row: str, order: Order) -> None:
    assert read(tmp_path, HEADER + row) == OrderFile((order,), ())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",shipped,Tee,,,", "order_id is missing"),
        ("none,shipped,Tee,,,", "order_id is missing"),
        ("1001,shipped,Tee,,,", "order_id '1001' does not look like 'ORD-1001'"),
        ("ORD 1001,shipped,Tee,,,", "order_id 'ORD 1001' does not look like 'ORD-1001'"),
        ("ORD-\u0661,shipped,Tee,,,", "does not look like 'ORD-1001'"),
        ("ORD-1,,Tee,,,", "status is missing"),
        ("ORD-1,lost,Tee,,,", "status 'lost' is none of processing, shipped, delivered"),
        ("ORD-1,shipped,,,,", "item is missing"),
        ("ORD-1,shipped,Tee,,RM 49,", "tracking 'RM 49' is no tracking number"),
        ("ORD-1,shipped,Tee,,RM/49,", "tracking 'RM/49' is no tracking number"),
        (f"ORD-1,shipped,Tee,,{'1' * 65},", "is no tracking number"),
        ("ORD-1,shipped,Tee,,,jo", "customer_email 'jo' is no e-mail address"),
        ("ORD-1,shipped,Tee,,,jo@localhost", "'jo@localhost' is no e-mail address"),
        ("ORD-1,shipped,Tee,,,a@b.example c@d.example", "is no e-mail address"),
        ("ORD-1,shipped,Tee,,,Jo <jo@example.com>", "is no e-mail address"),
        ("ORD-1,shipped,T\x1b[31mee,,,", r"item 'T\x1b[31mee' has control characters in it"),
        (f"ORD-1,shipped,{'x' * 501},,,", "has 501 characters, more than 500"),
        (f"{'A' * 40}-1,shipped,Tee,,,", "does not look like 'ORD-1001'"),
        ("ORD-1,shipped,Tee (M, Orange),,,", "has 7 cells where the header has 6"),
        ("ORD-1,shipped", "has 2 cells where the header has 6"),
        ('ORD-1,shipped,"Tee" soft,,,', "cannot be split into cells"),
    ],
)
def test_a_bad_row_is_reported_by_line_and_value_and_the_others_are_kept(
    tmp_path: Path, row: str, reason: str
) -> None:
    found = read(tmp_path, f"{HEADER}ORD-7,shipped,Tee,,,\n{row}\nORD-8,shipped,Tee,,,\n")

    assert [order.order_id for order in found.orders] == ["ORD-7", "ORD-8"]
    assert [problem.line for problem in found.problems] == [3]
    assert reason in found.problems[0].reason


def test_everything_wrong_with_a_row_is_said_at_once(tmp_path: Path) -> None:
    found = read(tmp_path, HEADER + "1001,lost,,,R M,jo\n")

    [problem] = found.problems
    for column in ("order_id '1001'", "status 'lost'", "item", "tracking 'R M'", "customer_email"):
        assert column in problem.reason


def test_a_long_bad_value_is_shown_shortened(tmp_path: Path) -> None:
    found = read(tmp_path, HEADER + f"ORD-1,{'x' * 400},Tee,,,\n")

    assert len(found.problems[0].reason) < 150


def test_a_row_is_named_by_the_line_it_begins_on(tmp_path: Path) -> None:
    rows = 'ORD-1,shipped,"Tee\n\nsoft",,,\n\nORD-2,lost,"Tee\nsoft",,,\nORD-3,lost,Tee,,,\n'

    found = read(tmp_path, HEADER + rows)

    assert [problem.line for problem in found.problems] == [6, 8]


def test_a_quote_that_is_never_closed_is_reported_where_it_opens(tmp_path: Path) -> None:
    rows = f'{GOOD_ROW}ORD-2,shipped,"Tee,,,\nORD-3,shipped,Tee,,,\n'

    found = read(tmp_path, HEADER + rows)

    reason = "opens a quote that is never closed; nothing after it was read"
    assert found == OrderFile((build_order(),), (RowProblem(3, reason),))


def test_an_order_that_is_there_twice_counts_once_and_names_the_first(tmp_path: Path) -> None:
    rows = "ORD-1,shipped,Tee,,,\nORD-2,shipped,Tee,,,\nord-1,delivered,Tee,,,\n"

    found = read(tmp_path, HEADER + rows)

    assert found.orders == (build_order(), build_order("ORD-2"))
    assert found.problems == (RowProblem(4, "order_id 'ORD-1' is in line 2 already"),)


def test_json_problems_are_named_by_their_place_in_the_list(tmp_path: Path) -> None:
    good = {"order_id": "ORD-1", "status": "shipped", "item": "Tee"}
    items = [good, "ORD-2", good | {"order_id": None}, good, good | {"item": ["Tee"]}, 7]

    found = read(tmp_path, json.dumps(items), "orders.json")

    assert found.orders == (build_order(),)
    assert found.problems == (
        RowProblem(2, "is no object but 'ORD-2'"),
        RowProblem(3, "order_id is missing"),
        RowProblem(4, "order_id 'ORD-1' is in item 1 already"),
        RowProblem(5, "item ['Tee'] is not text"),
        RowProblem(6, "is no object but 7"),
    )


@pytest.mark.parametrize(("value", "eta"), [(5, "5"), ("5", "5")])
def test_a_whole_number_in_json_is_text(tmp_path: Path, value: int | str, eta: str) -> None:
    items = [{"order_id": "ORD-1", "status": "shipped", "item": "Tee", "eta": value}]

    assert read(tmp_path, json.dumps(items), "a.json").orders == (build_order(eta=eta),)


@pytest.mark.parametrize("value", [True, 1.5, {}, [], "\ud800"])
def test_what_is_no_text_in_json_is_reported(tmp_path: Path, value: object) -> None:
    items = [{"order_id": "ORD-1", "status": "shipped", "item": value}]

    found = read(tmp_path, json.dumps(items), "a.json")

    assert found.orders == ()
    assert found.problems[0].reason.startswith("item ")


def test_a_bad_line_of_json_lines_is_reported_and_the_others_are_kept(tmp_path: Path) -> None:
    good = '{"order_id": "ORD-1", "status": "shipped", "item": "Tee"}'

    found = read(tmp_path, f"\n{{\n{good}\n", "orders.jsonl")

    assert found.orders == (build_order(),)
    assert [problem.line for problem in found.problems] == [2]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xef\xbb\xbf \n", "is empty"),
        ("a.csv", b"PK\x03\x04\xff\xff\x00", "is not text in UTF-8"),
        ("a.csv", "order_id,status,item\nORD-1,shipped,Crème\n".encode("cp1252"), "not text"),
        ("a.csv", "order_id,status,item\n".encode("utf-16-le"), "zero bytes"),
        ("a.csv", b"\xff\xfeabc", "is not text"),
        ("a.csv", b"order_id,item\nORD-1,Tee\n", "no column status"),
        ("a.csv", b"hello\n", "no column order_id, status, item (its header: ['hello'])"),
        ("a.csv", b'"order_id,status,item\n', "no column"),
        ("a.csv", b"order_id,status,item,Item\n", "column item more than once"),
        ("a.json", b'[{"order_id":\n 1,}]', "is not JSON: "),
        ("a.json", b'[{"order_id":\n 1,}]', "line 2, column"),
        ("a.json", b'{"order": []}', "neither a list of orders nor"),
        ("a.json", b'"ORD-1"', "neither a list of orders nor"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"[" + b"1" * 5000 + b"]", "4300"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name_and_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(ImportFileError) as refused:
        read(tmp_path, content, name)

    assert str(tmp_path / name) in str(refused.value)
    assert reason in str(refused.value)


def test_a_missing_file_and_a_directory_are_refused_by_name(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ImportFileError) as refused:
            read_orders(path)

        assert str(path) in str(refused.value)
        assert reason in str(refused.value)


@pytest.mark.parametrize("content", ["order_id,status,item\n", HEADER])
def test_a_table_without_rows_has_no_orders_and_no_problems(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == OrderFile((), ())
