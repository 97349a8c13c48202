from eql_d2.categories import CategoryStatistics


def small():
    return CategoryStatistics.from_counts(
        names=["cat", "a very long category name", "dog"],
        category_ids=[3, 5, 8],
        image_count=[4, 200, 30],
        instance_count=[5, 1234, 31],
        num_images=300,
    )


def test_table_has_groups_then_categories_by_falling_count():
    lines = small().table().splitlines()
    assert lines[0] == "3 categories, 1,270 instances, 300 annotated images"
    groups = {line.split()[0]: line.split()[1:] for line in lines[2:5]}
    assert groups["rare"] == ["1", "4-4", "1.71", "%"]
    assert groups["common"] == ["1", "30-30", "12.82", "%"]
    assert groups["frequent"] == ["1", "200-200", "85.47", "%"]
    assert lines[5:7] == [
        "rare/common/frequent: at most 10, at most 100, more training images (counts)",
        "",
    ]
    assert [line.split()[0] for line in lines[8:]] == ["5", "8", "3"]
    assert lines[8].split()[-4:] == ["frequent", "200", "1,234", "0.667"]


def test_columns_stand_under_their_headings():
    lines = small().table().splitlines()
    assert len({len(line) for line in lines[1:5]}) == 1
    assert len({len(line) for line in lines[7:]}) == 1


def test_a_group_without_categories_is_shown_as_empty():
    text = small().with_groups("counts", rare_max=0, common_max=0).table()
    rare = next(line for line in text.splitlines() if line.startswith("rare"))
    assert rare.split() == ["rare", "0", "-", "0.00", "%"]


def test_a_long_table_leaves_the_middle_out_and_counts_it():
    table = CategoryStatistics.from_table("lvis_v1")
    lines = table.table(max_rows=7).splitlines()
    assert len(lines) == 5 + 1 + 1 + 4 + 1 + 3
    assert lines[11].split() == ["...", "1196", "more"]
    assert "frequent" in lines[7]
    assert "rare" in lines[-1]
    assert len(table.table(max_rows=1203).splitlines()) == 7 + 1203


def test_a_table_of_nothing_annotated_can_be_printed():
    nothing = CategoryStatistics.from_counts(
        names=["x"], category_ids=[1], image_count=[0], instance_count=[0], num_images=0
    )
    assert "0 annotated images" in nothing.table()
