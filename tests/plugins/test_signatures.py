"""Standardised signatures against loops."""

from dataclasses import replace

import pytest
import torch

from attribute_tasks import attribute_task, z_scores
from fewshot_plugins._signatures import binarise, informative, row_space, standardise


def test_standardise_equals_loops_on_a_table_of_mixed_scales():
    task, _, _ = attribute_task()
    table = task.attributes * torch.tensor([1.0, 100, 0.01, 1, 1, 1, 1, 1], dtype=torch.float64) - 3
    table[:, 4] = 2.5  # constant
    table[:6, 5] = 1.0  # constant among the seen
    task = replace(task, attributes=table)
    torch.testing.assert_close(standardise(task), torch.tensor(z_scores(task), dtype=torch.float64))
    assert informative(task)[0].tolist() == [True, True, True, True, False, False, True, True]


def test_an_unseen_class_changes_no_other_row():
    task, _, _ = attribute_task()
    table = task.attributes.clone()
    table[-1] = 1000.0
    other = replace(task, attributes=table)
    torch.testing.assert_close(standardise(other)[:-1], standardise(task)[:-1])
    torch.testing.assert_close(binarise(other)[:-1], binarise(task)[:-1])


def test_zeros_and_ones_stay():
    task, _, _ = attribute_task()
    table = (task.attributes > 0.5).double()
    table[:6, 0], table[6:, 0] = 1.0, 0.0
    useful = informative(replace(task, attributes=table)).squeeze(0)
    assert torch.equal(binarise(replace(task, attributes=table))[:, useful], table[:, useful])


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_row_space_keeps_all_products(shape):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, basis = row_space(x)
    assert z.shape == (shape[0], min(shape))
    torch.testing.assert_close(z @ z.mT, x @ x.mT)
    torch.testing.assert_close(z if basis is None else z @ basis.mT, x)
