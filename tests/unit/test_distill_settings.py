"""The trainer's own settings: the daemon's, and the variants of the loss."""

import pytest

from config.errors import ConfigError
from config.renamed import REMOVED
from config.sections import Distill
from distill.settings import LOSS_OPTIONS, TrainerSettings, with_loss_options


def test_settings_removed_from_the_configuration_are_options_of_the_trainer():
    assert set(LOSS_OPTIONS) == set(REMOVED["distill"])


def test_loss_options_are_added_to_the_configuration():
    settings = with_loss_options(Distill(rank=8), {"top_k": "256", "divergence": "jsd"})
    assert settings == TrainerSettings(rank=8, top_k=256, divergence="jsd")


def test_a_loss_option_out_of_range_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"--teacher-weight: .* \(got '2'\)"):
        with_loss_options(Distill(), {"teacher_weight": "2"})
