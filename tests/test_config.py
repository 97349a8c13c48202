"""The configuration tree: keys, inheritance, overrides, and what users get wrong."""

import json

import pytest
from fvcore.common.config import CfgNode

from eql_d2.config import (
    CHANGED_DEFAULTS,
    KEYS,
    OTHER_NAMES,
    add_eql_config,
    changed_keys,
    config_from_text,
    detectron2_defaults,
    find_key,
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
    "text",
    [
        *("a: [1,", "- 1\n- 2\n", "just text", "", "5", "_BASE_: 5", "_BASE_: [a]"),
        *("SEED: 2020-13-45", 'SEED: !!int "abc"', 'SEED: !!int ""', 'SEED: !!bool "x"'),
    ],
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


@pytest.mark.parametrize("items", [["0.1"], ["A.B", "1", "4"], ["A.B", "[60,", "80]", "C.D", "2"]])
def test_a_number_where_a_key_is_expected_is_named(items):
    with pytest.raises(ConfigError, match="stands where a key such as SOLVER") as caught:
        parse_overrides(items)
    assert str(caught.value).startswith(items[-1] if len(items) < 5 else "80] stands")


def test_other_names_lead_to_keys_that_exist():
    defaults = detectron2_defaults()
    add_eql_config(defaults)
    for name, key in OTHER_NAMES.items():
        assert not isinstance(get_value(defaults, key), CfgNode)
        assert find_key(f"--{name}") == key


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--weights", "MODEL.WEIGHTS"),
        ("--num_workers", "DATALOADER.NUM_WORKERS"),
        ("--seed", "SEED"),  # not DATA.LONGTAIL_SHAPES.SEED
        ("--max-iters", "SOLVER.MAX_ITER"),
        ("--norm", None),  # of six heads and backbones
        ("--frobnicate", None),
    ],
)
def test_a_flag_is_taken_for_the_one_key_of_nearly_its_name(flag, key):
    assert find_key(flag) == key


@pytest.mark.parametrize(
    ("name", "meant"),
    [("SOLVER.BATCH_SIZE", "SOLVER.IMS_PER_BATCH"), ("solver.max_iter", "SOLVER.MAX_ITER")],
)
def test_an_unknown_key_is_taken_for_what_it_is_called_elsewhere(write_yaml, name, meant):
    with pytest.raises(ConfigError, match=f"unknown key {name}; did you mean {meant}"):
        load_config(write_yaml("a.yaml", "SEED: 1"), [name, "3"])


def test_changed_keys_lists_what_a_recipe_changed_and_nothing_else(write_yaml):
    path = write_yaml("a.yaml", "SOLVER: {STEPS: [5], BASE_LR: 0.001}\n")
    changed = changed_keys(load_config(path, ["DATA.TRAIN_JSON", "x.json"]))
    assert changed == {"SOLVER.STEPS": [5], "DATA.TRAIN_JSON": "x.json"}


def test_the_tree_survives_a_round_trip_through_its_dump(write_yaml):
    cfg = load_config(write_yaml("a.yaml", "{}"), ["SOLVER.STEPS", "[3]"])
    again = load_config(write_yaml("dumped.yaml", cfg.dump()))
    assert json.dumps(again, sort_keys=True) == json.dumps(cfg, sort_keys=True)


def test_numbers_that_are_not_finite_are_named_with_their_file(write_yaml):
    path = write_yaml(
        "nan.yaml",
        "SOLVER: {BASE_LR: .nan, GAMMA: -.inf, WEIGHT_DECAY_BIAS: 1.0e+400}\n"
        "MODEL: {PIXEL_STD: [1.0, 1e400, 1.0]}\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["SOLVER.MOMENTUM", "1e999", "SOLVER.BASE_LR=nan"])
    assert caught.value.problems == [
        f"{path}: SOLVER.BASE_LR must be finite, got nan",
        f"{path}: SOLVER.GAMMA must be finite, got -inf",
        f"{path}: SOLVER.WEIGHT_DECAY_BIAS must be finite, got inf",
        f"{path}: MODEL.PIXEL_STD must hold numbers, as in [1.0, 1.0, 1.0]; got '1e400'",
        "command line: SOLVER.MOMENTUM must be finite, got inf",
        "command line: SOLVER.BASE_LR must be a number (default 0.001), got 'nan'",
    ]


def test_no_default_needs_to_be_infinite():
    assert [v for v in changed_keys(detectron2_defaults(), CfgNode()).values() if v != v] == []
    text = detectron2_defaults().dump()
    assert ".inf" not in text
    assert ".nan" not in text


def test_the_configuration_of_a_checkpoint_comes_back(tmp_path):
    (tmp_path / "a.yaml").write_text("SOLVER: {STEPS: [1, 2], BASE_LR: 1e-3}\nSEED: 7\n")
    cfg = load_config(tmp_path / "a.yaml")
    assert config_from_text(cfg.dump(), "the checkpoint") == cfg


def test_a_value_that_is_used_twice_comes_back(tmp_path):
    """YAML writes it once, with an anchor."""
    sizes = "&a [8.0, 16.0]"
    (tmp_path / "a.yaml").write_text(f"MODEL: {{ANCHOR_GENERATOR: {{SIZES: [{sizes}, *a]}}}}\n")
    cfg = load_config(tmp_path / "a.yaml")
    assert "*id" in cfg.dump()
    assert config_from_text(cfg.dump(), "the checkpoint") == cfg


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- 1", "S must hold a mapping of keys, got a list"),
        ("_BASE_: /etc/passwd", "S names another file with _BASE_"),
        ("A: !!python/name:os.system", "S cannot be read as YAML"),
        ("A: &a {x: 1}\nB: {<<: *a}", "merge keys"),
        ("SOLVER: {MAX_ITR: 3}", r"S: unknown key SOLVER.MAX_ITR; did you mean SOLVER.MAX_ITER\?"),
        ("SOLVER: {MAX_ITER: many}", "S: SOLVER.MAX_ITER must be a whole number"),
        ("A: " + "[" * 30 + "]" * 30, "nested more than 20 deep"),
        ("#" * 200_001, "200001 characters"),
        ("\n".join(f"K{i}: 1" for i in range(99)), "what follows was not checked"),
    ],
)
def test_the_configuration_of_a_checkpoint_is_checked(text, problem):
    with pytest.raises(ConfigError, match=problem):
        config_from_text(text, "S")


def test_anchors_in_a_file_that_repeat_without_end(tmp_path):
    lines = [f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}" for i in range(1, 60)]
    (tmp_path / "a.yaml").write_text("a0: &a0 {x: 1}\n" + "\n".join(lines))
    with pytest.raises(ConfigError, match=r"a\.yaml has more than 20000 values"):
        load_config(tmp_path / "a.yaml")
