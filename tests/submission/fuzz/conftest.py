"""A slow validator, written another way."""

from collections import Counter

import pytest


def number(value):
    """The finite number a json value is, or None."""
    if type(value) not in (int, float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if abs(value) < float("inf") else None


def whole(value):
    found = number(value)
    fits = found is not None and found == int(found) and abs(found) < 2**62
    return int(value) if fits else None


def box_of(value):
    if not isinstance(value, list) or len(value) != 4:
        return None
    box = [number(v) for v in value]
    return None if None in box or box[2] < 0 or box[3] < 0 else box


def has_rle_form(value):
    if not isinstance(value, dict) or not isinstance(value.get("size"), list):
        return False
    size, counts = value["size"], value.get("counts")
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return False
    if size[0] * size[1] >= 2**31:
        return False
    if isinstance(counts, list):
        return all(type(run) is int and 0 <= run < 2**31 for run in counts)
    return isinstance(counts, str)


def runs_of(counts):
    """Run lengths of a compressed or plain RLE, or None: the format, character by character."""
    if isinstance(counts, list):
        return counts
    runs, value, place = [], 0, 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or place == 6:  # pycocotools misreads longer numbers
            return None
        value |= (code & 31) << (5 * place)
        place += 1
        if not code & 32:
            if code & 16:
                value -= 1 << (5 * place)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            if not 0 <= runs[-1] < 2**29:
                return None
            value = place = 0
    return runs if place == 0 and runs else None


class SlowValidator:
    """Fault codes and counts, one record after the other, from the definitions alone."""

    def __init__(self, truth, max_detections=300):
        self.sizes = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
        self.ids = sorted(c["id"] for c in truth["categories"])
        self.objects = {(a["image_id"], a["category_id"]) for a in truth["annotations"]}
        self.labelled = self.objects | {
            (i["id"], c) for i in truth["images"] for c in i["neg_category_ids"]
        }
        self.max_detections = max_detections

    def __call__(self, records):
        faults, seen, images = Counter(), Counter(), Counter()
        boxes, known, fields = [], [], Counter()
        for record in records:
            if not isinstance(record, dict):
                faults["record-form"] += 1
                continue
            fields.update(key for key in ("bbox", "segmentation") if key in record)
            image, category = self.ids_of(record, faults)
            score = self.score_of(record, faults)
            size = self.sizes.get(image)
            box = self.check_box(record, size, faults)
            counts = self.check_mask(record, size, faults)
            if image is not None:
                images[image] += 1
                boxes += [] if box is None else [(size, box)]
                if category is not None:
                    known.append((image, category, score or 0.0))
                    seen[(image, category, score, None if box is None else tuple(box), counts)] += 1
        faults["no-records"] = int(not records)
        objects = sum(isinstance(record, dict) for record in records)
        for key, code in (("bbox", "bbox-missing"), ("segmentation", "mask-missing")):
            faults[code] = objects - fields[key] if fields[key] else 0
        faults["too-many-detections"] = sum(n > self.max_detections for n in images.values())
        faults["images-without-detections"] = len(self.sizes) - len(images) if images else 0
        faults["duplicates"] = sum(seen.values()) - len(seen)
        self.check_labels(known, faults)
        self.check_habits(boxes, faults)
        return {code: count for code, count in faults.items() if count}

    def ids_of(self, record, faults):
        if not all(key in record for key in ("image_id", "category_id", "score")):
            faults["field-missing"] += 1
        found = []
        for what, known in (("image", self.sizes), ("category", self.ids)):
            value = None
            if f"{what}_id" in record:
                value = whole(record[f"{what}_id"])
                faults[f"{what}-id-form"] += value is None
                faults[f"{what}-unknown"] += value is not None and value not in known
            found.append(value if value in known else None)
        return found

    def score_of(self, record, faults):
        if "score" not in record:
            return None
        score = number(record["score"])
        faults["score-form"] += score is None
        faults["score-range"] += score is not None and not 0 <= score <= 1
        return score

    def check_box(self, record, size, faults):
        if "bbox" not in record:
            faults["geometry-missing"] += "segmentation" not in record
            return None
        box = box_of(record["bbox"])
        if box is None:
            faults["bbox-form"] += 1
            return None
        x, y, w, h = box
        faults["bbox-empty"] += w * h == 0
        if size is not None:
            reach = max(-x, -y, x + w - size[1], y + h - size[0])
            faults["bbox-outside"] += reach > 1
        return box

    def check_mask(self, record, size, faults):
        if "segmentation" not in record:
            return None
        rle = record["segmentation"]
        if not has_rle_form(rle):
            faults["mask-form"] += 1
            return None
        faults["mask-uncompressed"] += isinstance(rle["counts"], list)
        faults["mask-size"] += size is not None and tuple(rle["size"]) != size
        runs = runs_of(rle["counts"])
        if runs is None or sum(runs) != rle["size"][0] * rle["size"][1]:
            faults["mask-counts"] += 1
        else:
            faults["mask-empty"] += sum(runs[1::2]) == 0
        return rle["counts"] if isinstance(rle["counts"], str) else tuple(runs)

    def check_labels(self, known, faults):
        total = len(known)  # of three images, which prove no shift of the ids
        now = sum((image, category) in self.labelled for image, category, _ in known)
        if total >= 20 and total - now > 0.99 * total:
            faults["unlabelled"] = total - now

    def check_habits(self, boxes, faults):
        if len(boxes) < 20:
            return
        corners = [w > x and h > y and w <= W + 1 and h <= H + 1 for (H, W), (x, y, w, h) in boxes]
        outside = [x + w > W + 1 or y + h > H + 1 for (H, W), (x, y, w, h) in boxes]
        if all(max(box) <= 1 for _, box in boxes):
            faults["bbox-relative"] = len(boxes)
        elif all(corners) and any(outside):
            faults["bbox-corners"] = len(boxes)


@pytest.fixture
def slow_validator():
    """``slow_validator(truth)(records)`` -> {code: count}."""
    return SlowValidator
