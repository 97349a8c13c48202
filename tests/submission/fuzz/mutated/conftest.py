"""Broken results files: changed records, then broken bytes."""

import gzip
import io
import json
import zipfile

import pytest

FIELDS = ("image_id", "category_id", "score", "bbox", "segmentation")
NASTY = [
    *(None, True, False, "", "3", "nan", "\ud800", [], {}, [[]], [None], {"size": None}),
    *(0, -1, 1, 2, 3, 4, 5, 8, 10, 11, 12, 99, 3.0, 3.5, -0.0, 1e-300, 1.0000001, 1e300, 2**31),
    *(2**62, 2**63, 2**64, -(2**63), 10**25, float("nan"), float("inf"), -float("inf")),
    *([1, 2, 3], [1, 2, 3, 4, 5], [0, 0, 0, 0], [0, 0, -1, 5], [1, 2, "3", 4], [1, 2, True, 4]),
    *([0, 0, 1e200, 1e200], [0, 0, float("nan"), 1], [-0.9, -1, 5, 5], [-1.1, 0, 5, 5]),
    *([0, 0, 10**400, 1], [[1, 2, 3, 4]], {"x": 1}, [0.1, 0.2, 0.3, 0.4], "[1, 2, 3, 4]"),
    *([[1, 1, 9, 1, 9, 9]], {"size": [40, 60], "counts": []}, {"size": [40, 60]}),
    *({"size": [60, 40], "counts": "00"}, {"size": [40, 60], "counts": [2400]}),
    *({"size": [40, 60], "counts": [0, 2400]}, {"size": [40, 60], "counts": [2399, 1, 5]}),
    *({"size": [40, 60], "counts": "T3\\9T3llooooOPb1"}, {"size": [40, 60], "counts": "0P1"}),
    *({"size": [40, 60], "counts": "T3\\9T3lloooOPb1"}, {"size": [40, 60], "counts": "0000P[2"}),
    *({"size": [40, 60], "counts": "\x00"}, {"size": [40, 60], "counts": "é"}),
    *({"size": [40.0, 60], "counts": "00"}, {"size": [True, 60], "counts": "00"}),
    *({"size": [2**16, 2**16], "counts": [2**31]}, {"size": [0, 60], "counts": [0]}),
    *({"size": [40, 60], "counts": [2400.0]}, {"size": [40, 60], "counts": [-1, 2401]}),
    *({"size": [40, 60], "counts": "PPPPPPPPPPPP0"}, {"size": [40, 60], "counts": "oooo"}),
]


def change_value(rng, records):
    record = records[rng.integers(len(records))]
    record[FIELDS[rng.integers(len(FIELDS))]] = NASTY[rng.integers(len(NASTY))]


def drop_field(rng, records):
    records[rng.integers(len(records))].pop(FIELDS[rng.integers(len(FIELDS))], None)


def drop_field_everywhere(rng, records):
    key = FIELDS[rng.integers(len(FIELDS))]
    for record in records:
        record.pop(key, None)


def replace_record(rng, records):
    records[rng.integers(len(records))] = NASTY[rng.integers(len(NASTY))]


def repeat_records(rng, records):
    for index in rng.integers(len(records), size=rng.integers(1, 5)):
        records.append(json.loads(json.dumps(records[index])))


def shift_categories(rng, records):
    shift = int(rng.choice([-1, 1]))
    for record in records:
        record["category_id"] += shift


def one_category(rng, records):
    category = int(rng.choice([2, 3, 4, 10, 11]))
    for record in records:
        record["category_id"] = category


def scale_boxes(rng, records):
    factor = float(rng.choice([1 / 64, 0.5, 3, -1]))
    for record in records:
        record["bbox"] = [value * factor for value in record["bbox"]]


def to_corners(rng, records):
    for record in records:
        x, y, w, h = record["bbox"]
        record["bbox"] = [x, y, x + w, y + h]


def move_to_one_image(rng, records):
    image_id = int(rng.choice([3, 5, 8]))
    for record in records:
        record["image_id"] = image_id


def swap_sides(rng, records):
    for record in records:
        record["segmentation"]["size"].reverse()


def change_counts(rng, records):
    rle = records[rng.integers(len(records))]["segmentation"]
    text, place = rle["counts"], int(rng.integers(len(rle["counts"])))
    rle["counts"] = text[:place] + chr(int(rng.integers(40, 120))) + text[place + 1 :]


def to_lists(rng, records):
    for record in records[: rng.integers(1, len(records))]:
        height, width = record["segmentation"]["size"]
        record["segmentation"]["counts"] = [5, 10, height * width - 15]


def remove_all(rng, records):
    records.clear()


CHANGES = [
    *(change_value, change_value, change_value, drop_field, replace_record, repeat_records),
    *(drop_field_everywhere, shift_categories, one_category, scale_boxes, to_corners),
    *(move_to_one_image, swap_sides, change_counts, change_counts, to_lists, remove_all),
]


def flip_byte(rng, data):
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([int(rng.integers(256))]) + data[place + 1 :]


def cut(rng, data):
    return data[: rng.integers(len(data))]


def remove_piece(rng, data):
    first = int(rng.integers(len(data)))
    return data[:first] + data[first + int(rng.integers(1, 60)) :]


def repeat_piece(rng, data):
    first, length = int(rng.integers(len(data))), int(rng.integers(1, 400))
    return data[: first + length] + data[first:]


def insert(rng, data):
    place = int(rng.integers(len(data)))
    return data[:place] + PIECES[rng.integers(len(PIECES))] + data[place:]


def digit(rng, data):
    places = [i for i, code in enumerate(data) if 48 <= code < 58]
    if not places:
        return data
    place = places[rng.integers(len(places))]
    return data[:place] + b"-0123456789.eE"[(k := rng.integers(14)) : k + 1] + data[place + 1 :]


def wrap(rng, data):
    return WRAPPINGS[rng.integers(len(WRAPPINGS))](data)


def zipped(data, names=("a.json",)):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return file.getvalue()


PIECES = [
    *(b"NaN", b"Infinity", b"-", b",", b",,", b"[", b"]", b"{", b"}", b'"', b"\\", b"\x00"),
    *(b"1e999", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"[]", b"{}", b"null", b"true"),
    *(b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b" " * 3000, b"// comment\n", b"\\ud800", b"'"),
]
WRAPPINGS = [
    lambda data: b"\xef\xbb\xbf" + data,
    lambda data: b" \r\n\t" + data + b"\n\n",
    lambda data: data.decode("latin-1").encode("utf-16"),
    lambda data: b'{"annotations": ' + data + b"}",
    lambda data: b"[" + data + b"]",
    lambda data: data + data,
    lambda data: data + b"x",
    lambda data: b"",
    gzip.compress,
    lambda data: gzip.compress(data)[:-9],
    lambda data: gzip.compress(data).replace(b"\x00\x02", b"\x00\x03", 1),
    zipped,
    lambda data: zipped(data)[:-5],
    lambda data: zipped(data, ("a.json", "b.json")),
    lambda data: zipped(data, ("a.txt",)),
    lambda data: zipped(data).replace(b"a.json", b"b.json", 1),
]
BREAKAGES = [flip_byte, flip_byte, cut, remove_piece, repeat_piece, insert, insert, digit, wrap]


def mutate_records(rng, make_records):
    """The bytes of a broken (or not) file, and which changes were made."""
    records = make_records(int(rng.integers(1, 45)), int(rng.integers(50)))
    done = []
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        change = CHANGES[rng.integers(len(CHANGES))]
        try:
            change(rng, records)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            continue  # an earlier change left nothing to do this one to
        done.append(change.__name__)
    data = json.dumps(records, indent=[None, 1][rng.integers(2)]).encode()
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        if not data:
            break
        breakage = BREAKAGES[rng.integers(len(BREAKAGES))]
        data = breakage(rng, data)
        done.append(breakage.__name__)
    return data, done


@pytest.fixture
def mutated(make_records):
    """``mutated(rng)``: the bytes of a broken (or not) file, and which changes were made."""
    return lambda rng: mutate_records(rng, make_records)
