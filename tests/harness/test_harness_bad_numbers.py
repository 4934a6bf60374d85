"""Counts that are none are refused before anything is computed."""

import pytest

torch = pytest.importorskip("torch", reason="the harness needs torch")

from optlaws.errors import InputError
from optlaws.harness import count_parameters, entropy
from optlaws.harness.sections import SyntheticData, TransformerConfig


@pytest.mark.parametrize(("length", "draws", "name"), [(0, 100, "length"), (-1, 100, "length"), (8, 0, "draws")])
def test_entropy_of_no_tokens(length, draws, name):
    with pytest.raises(InputError, match=f"{name} must be a whole number of at least 1, got"):
        entropy(SyntheticData(), length, draws)


def test_counts_of_no_vocabulary_or_sequence():
    with pytest.raises(InputError, match="vocab must be a whole number of at least 0, got -1"):
        count_parameters(TransformerConfig(), vocab=-1)
    with pytest.raises(InputError, match="seq_len must be a whole number of at least 1, got 0"):
        count_parameters(TransformerConfig(), vocab=512, seq_len=0)
