"""The verbs that write, by their options."""

import inspect

from tests.makers.console import here
from tests.makers.runs import Trained
from yanmo.cli.options import SAMPLER
from yanmo.cli.writing import chat, generate
from yanmo.settings.schema import SampleConfig


def test_every_setting_of_the_sampler_is_an_option_of_each_verb_that_writes() -> None:
    own = {"prompt", "num_samples", "seed"}  # generate names these itself
    assert set(SAMPLER) == set(SampleConfig.model_fields) - own
    for verb in (generate, chat):
        assert set(SAMPLER) <= set(inspect.signature(verb).parameters)


def test_an_option_acts(trained: Trained) -> None:
    trained("run")
    asked = ("generate", "run", "-p", "江湖", "--seed", "3", "--max-new-tokens", "40")
    whole = here(*asked, "--min-new-tokens", "40").stdout
    line = here(*asked, "--stop-at", "line").stdout.removesuffix("\n")
    assert "\n" not in line and len(whole) > len(line) >= 2
    refused = here(*asked, "--stop-at", "word")
    assert refused.returncode == 2 and "sentence" in refused.stderr
    refused = here(*asked, "--presence-penalty", "3")
    assert refused.returncode == 2 and "sample.presence_penalty=3" in refused.stderr
