"""Drawn objects, checked pixel by pixel."""

import numpy as np
import pytest

from eql_d2.plotting import category_color, draw_instances
from eql_d2.plotting.images import load_font
from eql_d2.plotting.instances import MASK_OPACITY, picture_scale, shorten

GREY = np.full((160, 160, 3), 128, dtype=np.uint8)


def square(top, left, side, size=160):
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def test_small_images_are_enlarged_and_large_ones_kept():
    assert picture_scale(160, 160) == 3
    assert picture_scale(100, 479) == 2
    assert picture_scale(480, 20) == picture_scale(3000, 2000) == 1
    assert draw_instances(GREY, [], []).shape == (480, 480, 3)
    assert draw_instances(GREY, [], [], scale=1).shape == (160, 160, 3)


def test_nothing_to_draw_leaves_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    drawn = draw_instances(image, np.zeros((0, 4)), [], scores=[], masks=[], scale=1)
    assert np.array_equal(drawn, image)
    assert drawn is not image


def test_mask_tint_contour_and_outside():
    mask = square(60, 40, 50)
    before = GREY.copy()
    drawn = draw_instances(GREY, [(40, 60, 50, 50)], ["x"], masks=[mask], categories=[0], scale=1)
    color = np.array(category_color(0))
    tinted = np.rint(128 * (1 - MASK_OPACITY) + color * MASK_OPACITY)
    assert np.array_equal(drawn[85, 65], tinted)
    assert np.array_equal(drawn[60, 65], color)
    assert np.array_equal(drawn[109, 65], color)
    assert np.array_equal(drawn[130, 130], [128, 128, 128])
    assert np.array_equal(drawn[85, 120], [128, 128, 128])
    assert np.array_equal(GREY, before)


def test_contour_follows_the_mask_not_the_box():
    mask = square(80, 50, 30)
    drawn = draw_instances(GREY, [(20, 60, 100, 80)], ["x"], masks=[mask], categories=[4], scale=1)
    color = category_color(4)
    assert tuple(drawn[80, 65]) == color
    assert tuple(drawn[109, 65]) == color
    assert tuple(drawn[75, 65]) == (128, 128, 128)
    assert tuple(drawn[100, 20]) == color  # the box


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_tinted_area_grows_with_the_scale(scale):
    mask = square(60, 60, 40)
    drawn = draw_instances(
        GREY, [(60, 60, 40, 40)], ["x"], masks=[mask], categories=[1], scale=scale
    )
    middle = drawn[62 * scale + 4 : 98 * scale - 4, 62 * scale + 4 : 98 * scale - 4]
    assert len(np.unique(middle.reshape(-1, 3), axis=0)) == 1
    assert tuple(drawn[58 * scale, 110 * scale]) == (128, 128, 128)


def label_pixels(drawn, color):
    return np.argwhere((drawn == np.array(color)).all(axis=2))


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 20), (150, 0, 10, 160), (0, 150, 160, 10), (70, 70, 9, 9)]
)
def test_the_label_is_drawn_inside_the_image(box):
    empty = draw_instances(GREY, [box], [""], categories=[2])
    drawn = draw_instances(GREY, [box], ["aerosol_can"], [0.87], categories=[2])
    more = len(label_pixels(drawn, category_color(2))) - len(label_pixels(empty, category_color(2)))
    font = load_font(13)
    assert more > 0.4 * font.getlength("aerosol_can 0.87") * 13


def test_scores_change_the_label():
    box = [(40, 60, 50, 50)]
    low = draw_instances(GREY, box, ["cat"], [0.11])
    high = draw_instances(GREY, box, ["cat"], [0.99])
    assert not np.array_equal(low, high)
    assert np.array_equal(low, draw_instances(GREY, box, ["cat"], np.array([0.11])))


def test_colour_comes_from_the_index_or_else_the_name():
    box = [(40, 60, 50, 50)]
    by_name = draw_instances(GREY, box, ["cat"], scale=1)
    by_index = draw_instances(GREY, box, ["cat"], categories=np.array([5]), scale=1)
    assert tuple(by_name[100, 40]) == category_color("cat")
    assert tuple(by_index[100, 40]) == category_color(5)


def test_small_objects_are_drawn_on_top_of_large_ones_in_any_order():
    large, small = square(10, 10, 140), square(60, 60, 30)
    boxes = [(60, 60, 30, 30), (10, 10, 140, 140)]
    drawn = draw_instances(
        GREY, boxes, ["s", "l"], masks=[small, large], categories=[0, 4], scale=1
    )
    swapped = draw_instances(
        GREY, boxes[::-1], ["l", "s"], masks=[large, small], categories=[4, 0], scale=1
    )
    assert tuple(drawn[89, 75]) == tuple(swapped[89, 75]) == category_color(0)


def test_best_score_gets_its_label_when_there_is_room_for_few():
    boxes = [(20, 20, 20, 20)] * 60
    scores = np.linspace(0.1, 0.9, 60)
    drawn = draw_instances(GREY, boxes, ["name"] * 60, scores, categories=range(60), scale=1)
    alone = draw_instances(GREY, boxes[:1], ["name"], [0.9], categories=[59], scale=1)
    # The best label has its place above the box, where a single one would be.
    assert np.array_equal(drawn[:8, 20:60], alone[:8, 20:60])


@pytest.mark.parametrize(
    "box", [(-20, -20, 30, 30), (150, 150, 50, 50), (300, 300, 5, 5), (50, 50, 0, 0)]
)
def test_odd_boxes_do_not_break_a_picture(box):
    assert draw_instances(GREY, [box], ["name"], [0.5]).shape == (480, 480, 3)


@pytest.mark.parametrize("masks", [None, [square(20, 20, 30)]])
def test_the_callers_image_stays(masks):
    image = GREY.copy()
    drawn = draw_instances(image, [(20, 20, 30, 30)], ["name"], masks=masks, scale=1)
    assert not np.array_equal(drawn, image)
    assert np.array_equal(image, GREY)


def test_missing_and_empty_masks():
    boxes = [(10, 10, 20, 20), (60, 60, 20, 20)]
    masks = [None, np.zeros((160, 160), dtype=bool)]
    with_masks = draw_instances(GREY, boxes, ["a", "b"], masks=masks)
    assert np.array_equal(with_masks, draw_instances(GREY, boxes, ["a", "b"]))


def test_equal_input_gives_equal_pixels():
    image = np.random.default_rng(1).integers(0, 256, (97, 131, 3)).astype(np.uint8)
    arguments = ([(5, 5, 60, 60), (50, 30, 40, 60)], ["a", "b"], [0.5, 0.4])
    assert np.array_equal(draw_instances(image, *arguments), draw_instances(image, *arguments))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["a", "b"]}, "1 boxes but 2 names"),
        ({"scores": []}, "1 boxes but 0 scores"),
        ({"categories": [1, 2]}, "1 boxes but 2 categories"),
        ({"masks": [np.ones((5, 5))]}, r"mask 0 is \(5, 5\)"),
        ({"image": GREY[..., 0]}, "image must be"),
        ({"image": GREY.astype(float)}, "image must be"),
    ],
)
def test_wrong_shapes_are_named(changes, message):
    arguments = {"image": GREY, "boxes": [(1, 1, 5, 5)], "names": ["a"]} | changes
    with pytest.raises(ValueError, match=message):
        draw_instances(**arguments)


def test_long_texts_keep_both_ends():
    font = load_font(13)
    text = shorten("a_very_long_category_name_of_a_data_set 0.87", font, 150)
    assert font.getlength(text) <= 150
    assert text.startswith("a_very")
    assert text.endswith("0.87")
    assert shorten("short 0.5", font, 150) == "short 0.5"
    assert shorten("two\nlines", font, 150) == "two lines"
