"""The configuration tree: keys, inheritance, overrides, and what users get wrong."""

import json

import pytest
from fvcore.common.config import CfgNode

from eql_d2.config import (
    CHANGED_DEFAULTS,
    KEYS,
    add_eql_config,
    changed_keys,
    detectron2_defaults,
    get_value,
    load_config,
    parse_overrides,
)
from eql_d2.errors import ConfigError


@pytest.fixture
def write_yaml(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_every_key_of_ours_is_in_the_tree_with_its_default(write_yaml):
    cfg = load_config(write_yaml("empty.yaml", "{}"))
    assert len(KEYS) > 20
    for key in KEYS:
        assert get_value(cfg, key.name) == key.default
        assert key.comment
    for name, value in CHANGED_DEFAULTS.items():
        assert get_value(cfg, name) == value


def test_keys_are_unique_and_none_shadows_a_detectron2_key():
    names = [key.name for key in KEYS]
    assert len(set(names)) == len(names)
    plain = detectron2_defaults()
    for name in names:
        with pytest.raises((KeyError, AttributeError)):
            get_value(plain, name)
    for name in CHANGED_DEFAULTS:
        assert get_value(plain, name) != CHANGED_DEFAULTS[name]


def test_adding_our_keys_changes_no_other(write_yaml):
    """Else a stock trainer, model or baseline in the same program would see our tools' defaults."""
    cfg, plain = detectron2_defaults(), detectron2_defaults()
    cfg.MODEL.DEVICE = "cuda:1"  # the caller's own
    add_eql_config(cfg)
    assert cfg.MODEL.DEVICE == "cuda:1"
    cfg.MODEL.DEVICE = plain.MODEL.DEVICE
    for name in {key.name.split(".")[0] for key in KEYS} - {"MODEL"}:
        del cfg[name]
    del cfg.MODEL["EQL"]
    assert cfg == plain


def test_adding_our_keys_again_keeps_their_values():
    cfg = detectron2_defaults()
    add_eql_config(cfg)
    cfg.MODEL.EQL.LOSS.LAMBDA = 0.0011
    add_eql_config(cfg)
    assert cfg.MODEL.EQL.LOSS.LAMBDA == 0.0011


def test_list_defaults_are_not_shared_between_trees():
    first, second = CfgNode(), CfgNode()
    add_eql_config(first)
    add_eql_config(second)
    first.MODEL.EQL.LOSS.THRESHOLD_PARAMETERS.append(1.0)
    assert second.MODEL.EQL.LOSS.THRESHOLD_PARAMETERS == []


def test_base_files_are_inherited_and_overrides_come_last(write_yaml):
    write_yaml("base.yaml", "SOLVER: {BASE_LR: 0.5, MAX_ITER: 7}\nMODEL: {MASK_ON: true}\n")
    child = write_yaml("child.yaml", "_BASE_: base.yaml\nSOLVER: {BASE_LR: 0.25}\n")
    cfg = load_config(child, ["SOLVER.MAX_ITER", "9", "OUTPUT_DIR=elsewhere"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (0.25, 9)
    assert cfg.MODEL.MASK_ON is True
    assert cfg.OUTPUT_DIR == "elsewhere"


def test_numbers_in_scientific_notation_are_numbers(write_yaml):
    path = write_yaml("a.yaml", "MODEL: {EQL: {LOSS: {LAMBDA: 1e-3}}}\n")
    cfg = load_config(path, ["SOLVER.BASE_LR", "2e-2"])
    assert cfg.MODEL.EQL.LOSS.LAMBDA == 1e-3
    assert cfg.SOLVER.BASE_LR == 2e-2


def test_lists_may_be_given_on_the_command_line(write_yaml):
    cfg = load_config(write_yaml("a.yaml", "{}"), ["SOLVER.STEPS", "[10,20]"])
    assert list(cfg.SOLVER.STEPS) == [10, 20]


def test_all_mistakes_are_reported_at_once_with_the_nearest_key(write_yaml):
    path = write_yaml(
        "bad.yaml",
        "SOLVER: {BASE_LR: fast, MAX_ITR: 3}\nMODEL: {EQL: {LOSS: {LAMDA: 0.1}}}\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["MAX_ITER", "7", "MODEL.EQL", "3"])
    message = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "SOLVER.BASE_LR must be a number (default 0.001), got 'fast'" in message
    assert "did you mean SOLVER.MAX_ITER?" in message
    assert "did you mean MODEL.EQL.LOSS.LAMBDA?" in message
    assert "unknown key MAX_ITER; did you mean SOLVER.MAX_ITER?" in message
    assert "MODEL.EQL, which is a group of keys" in message
    assert str(path) in message
    assert "command line" in message


def test_a_missing_file_names_its_neighbour(write_yaml):
    path = write_yaml("longtail_eql.yaml", "{}")
    with pytest.raises(ConfigError, match=r"did you mean .*longtail_eql\.yaml"):
        load_config(path.with_name("longtail_eq.yaml"))


@pytest.mark.parametrize(
    "text", ["a: [1,", "- 1\n- 2\n", "just text", "", "5", "_BASE_: 5", "_BASE_: [a]"]
)
def test_files_that_are_no_mapping_are_refused(write_yaml, text):
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(write_yaml("bad.yaml", text))


def test_a_file_that_is_no_text_is_refused(write_yaml):
    path = write_yaml("bad.yaml", "")
    path.write_bytes(b"SEED: \xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.yaml cannot be read as YAML"):
        load_config(path)


def test_a_missing_base_is_an_error_of_the_user(write_yaml):
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(write_yaml("a.yaml", "_BASE_: nowhere.yaml\n"))


def test_yaml_cannot_run_code(write_yaml, tmp_path):
    target = tmp_path / "ran"
    path = write_yaml("evil.yaml", f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{target}']\n")
    with pytest.raises(ConfigError):
        load_config(path)
    assert not target.exists()


def test_overrides_in_both_spellings():
    assert parse_overrides(["A.B", "1", "C.D=2", "E", "x=y"]) == [
        ("A.B", "1"),
        ("C.D", "2"),
        ("E", "x=y"),
    ]


@pytest.mark.parametrize(
    ("items", "corrected"),
    [
        (["A.B", "1", "--resume"], "--resume A.B 1"),
        (["A.B", "1", "--num-gpus", "8"], "--num-gpus 8 A.B 1"),
        (["A.B", "1", "--resume", "C.D", "2"], "--resume A.B 1 C.D 2"),
        (["A.B=1", "--dist-url=tcp://h:1"], "--dist-url=tcp://h:1 A.B=1"),
    ],
)
def test_a_flag_among_the_overrides_is_an_error_with_the_corrected_order(items, corrected):
    with pytest.raises(ConfigError) as caught:
        parse_overrides(items, value_flags=("--num-gpus",))
    assert str(caught.value).endswith(corrected)


def test_a_key_without_value_is_named():
    with pytest.raises(ConfigError, match=r"A\.B has no value"):
        parse_overrides(["C.D", "1", "A.B"])


def test_changed_keys_lists_what_a_recipe_changed_and_nothing_else(write_yaml):
    path = write_yaml("a.yaml", "SOLVER: {STEPS: [5], BASE_LR: 0.001}\n")
    changed = changed_keys(load_config(path, ["DATA.TRAIN_JSON", "x.json"]))
    assert changed == {"SOLVER.STEPS": [5], "DATA.TRAIN_JSON": "x.json"}


def test_the_tree_survives_a_round_trip_through_its_dump(write_yaml):
    cfg = load_config(write_yaml("a.yaml", "{}"), ["SOLVER.STEPS", "[3]"])
    again = load_config(write_yaml("dumped.yaml", cfg.dump()))
    assert json.dumps(again, sort_keys=True) == json.dumps(cfg, sort_keys=True)
