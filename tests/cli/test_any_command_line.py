"""Whatever stands on the command line: a command, or an answer that names what is wrong. Never anything else."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import common
from jaxvpr.cli import ranges
from jaxvpr.cli.arguments import Command, parse
from jaxvpr.cli.recipes import load_config
from jaxvpr.cli.verbs import VERBS, flags_of
from jaxvpr.errors import UserError

RECIPE = "configs/gsv_cities.py:tiny"
KEYS = [key for key, _ in ranges.leaves(load_config(RECIPE))]
GROUPS = sorted({key.rpartition(".")[0] for key in KEYS} - {""})
EXTREME = (
    "", " ", "0", "-1", "1e999", "-1e999", "nan", "NaN", "inf", "1e-320", str(2**63), str(10**400), "1_0", "²", "٣",
    "0x10", "false", "None", "()", "[]", "{}", "(1,", "((1,2),(3,4))", "{1: 2}", "{'a.b': 1}", "{'a': {'': 1}}",
    "{'root': 3}", "('(',)", "(('a', 1e999),)", "'", '"', "b'x'", "1+2j", "...", "a:b:c", "~", "..", "/", "\0",
    "\ud800", "🦄", "-" * 9000, "(" * 300, "a" * 5000,
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(EXTREME),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(repr),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.none()), max_size=4).map(tuple).map(repr),
    st.dictionaries(st.text(max_size=4), st.one_of(st.integers(), st.text(max_size=3)), max_size=2).map(repr),
)
ODD = st.text(st.characters(exclude_characters=",=:()[]{}'\""), max_size=5)
NAMES = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(GROUPS),
    st.builds("{}.{}".format, st.sampled_from(GROUPS), ODD),
    ODD,
)
CHANGES = st.builds("{}={}".format, st.one_of(NAMES, st.text(max_size=5)), VALUES)
FLAGS = st.builds("--{}={}".format, st.sampled_from(sorted({f.name for v in VERBS for f in flags_of(v)})), VALUES)
RECIPES = st.sampled_from((RECIPE, RECIPE, "configs/cosplace.py:tiny", "configs/sfrs.py", "configs/zoo.py:x"))
MANY = settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
# Positions and shares of sets, colours, and keys that are looked at as a whole.
NO_RANGE = ("image.size", "image.mean", "panorama.size", "objective.loss_options.base", "eval.sequence.velocity")
FREE = ("city.", "model.", "train_data.", "val_data.", "test_data.")


def said_of(arguments) -> str:
    """What is wrong with a command line; "" where it is a command."""
    try:
        return "" if isinstance(parse(arguments), Command) else "no command"
    except UserError as error:
        return str(error)


@MANY
@given(NAMES, VALUES, st.booleans())
def test_a_change_of_one_key(key, value, behind):
    """The message names the key or a group that it is in, or the text that could not be taken apart."""
    given = [f"--config={RECIPE},{key}={value}"] if behind else [f"--config={RECIPE}", f"--config.{key}={value}"]
    said = said_of(given)
    whole = [f"config.{key}", *(f"config.{key[:at]}" for at in range(len(key)) if key[at] == ".")]
    known = {"init": "config.weights"}.get(key, whole[0])
    named = [*whole, known, "--config=", "closing", "NUL"]
    assert not said or any(one in said for one in named), (given, said)


@MANY
@given(
    st.sampled_from(["", *VERBS, "trian"]), RECIPES, *[st.lists(CHANGES, max_size=2)] * 2, st.lists(FLAGS, max_size=3)
)
def test_any_verb_recipe_changes_and_flags(verb, recipe, behind, changes, flags):
    first = f"--config={','.join([recipe, *behind])}"
    said_of([*filter(None, [verb]), first, *(f"--config.{change}" for change in changes), *flags])


def test_every_number_has_a_range():
    """Of the defaults and of the objectives' keys none is left to be met far inside the program."""
    recipes = (RECIPE, "configs/cosplace.py:tiny", "configs/sfrs.py", "configs/eigenplaces.py", "configs/pretrain.py")
    for config in (common.base(), *map(load_config, recipes)):
        numbers = {
            key for key, value in ranges.leaves(config) if list(ranges.numbers(value)) and not key.startswith(FREE)
        }
        assert not numbers - set(ranges.TESTS) - set(NO_RANGE)
