"""Each strategy with the independent reference it is compared with, and the test that does so."""

import ast
from pathlib import Path

import pytest

from fewshot.registry import registry

REFERENCES = {  # strategy: (what it is compared with, file, part of the test's name)
    "ale": ("descent on the literal loss", "test_ranking.py", "equals_descent_on_the_literal_loss"),
    "alpha_tim": ("autograd and torch's Adam", "test_tim.py", "alpha_gradient_is_that_of_autograd"),
    "ape": ("the formula in loops", "test_tip_adapter_ape.py", "ape_is_equation_13"),
    "auto": ("its docstring, with scipy's minimiser", "test_auto.py", "is_the_blend_of_its_docstring"),
    "bayes": ("posterior predictive densities in loops", "test_bayes.py", "posterior_predictive_densities"),
    "bd_cspn": ("the formula in loops, and easyfsl", "test_bd_cspn.py", "predictions_equal_easyfsl"),
    "biased_ridge": ("least squares", "test_source_heads.py", "biased_ridge_is_least_squares"),
    "clap": ("the paper's loss under torch's SGD", "test_text_descent.py", "clap_is_anchored"),
    "conse": ("the formula in loops", "test_conse.py", "literal_convex_combination"),
    "coral": ("skada", "test_alignment.py", "recoloured_source_is_skada_s"),
    "cross_modal": ("the paper's loss under torch's AdamW", "test_text_descent.py", "cross_modal_trains"),
    "dann": ("autograd", "test_source_heads.py", "dann_reverses_the_gradient"),
    "dap": ("the formula in loops", "test_dap.py", "equals_the_literal_product"),
    "descriptions": ("the mean of the cosines in loops", "test_descriptions.py", "dclip_is_the_mean"),
    "devise": ("descent on the literal loss", "test_ranking.py", "equals_descent_on_the_literal_loss"),
    "dn4": ("the formula in loops", "test_dn4.py", "scores_are_the_formula"),
    "em_dirichlet": ("the algorithm with scipy's dirichlet", "test_em_dirichlet.py", "the_papers_loop"),
    "eszsl": ("the closed form in numpy", "test_eszsl.py", "equals_the_closed_form"),
    "gda": ("scikit-learn's LinearDiscriminantAnalysis", "test_gda.py", "discriminants_equal_scikit_learn"),
    "iap": ("the formula in loops", "test_iap.py", "equals_the_literal_product"),
    "jda": ("its dense eigenproblem", "test_components.py", "jda_solves_its_problem"),
    "kmm": ("scipy and skada", "test_source_weights.py", "mean_matching"),
    "knn": ("scikit-learn's KNeighborsClassifier", "test_knn.py", "probabilities_equal_scikit_learn"),
    "label_propagation": ("scikit-learn's LabelSpreading", "test_label_propagation.py", "distribution_in_scikit_learn"),
    "laplacian_shot": ("the updates in loops, and easyfsl", "test_laplacian_shot.py", "k_neighbours_are_k"),
    "linear_probe": ("scikit-learn's LogisticRegression", "test_linear_probe.py", "objective_equals_scikit_learn"),
    "lp_plus_plus": ("the paper's steps with autograd", "test_text_descent.py", "lp_plus_plus_moves"),
    "matching": ("the formula in loops", "test_knn.py", "matching_is_the_softmax"),
    "multi_task": ("the convex problem", "test_source_heads.py", "trace_norm_problem"),
    "pooled": ("scikit-learn on source and support as one", "test_alignment.py", "pooled_is_the_strategy"),
    "prototypical": ("NearestCentroid and easyfsl", "test_prototypical.py", "equal_scikit_learn_and_easyfsl"),
    "pt_map": ("the algorithm with plain Sinkhorn, and easyfsl", "test_pt_map.py", "assignments_equal_easyfsl"),
    "ridge": ("scikit-learn's RidgeClassifier", "test_ridge.py", "scores_equal_scikit_learn"),
    "sae": ("scipy's solve_sylvester", "test_sae.py", "both_directions_equal_scipy"),
    "simpleshot": ("the formula in loops, and easyfsl", "test_simpleshot.py", "predictions_equal_easyfsl"),
    "stacking": ("scipy's minimiser, its docstring in loops", "test_stacked_transfer.py", "weights_are_learned_where"),
    "stata": ("the updates in loops", "test_transclip.py", "stata_follows_the_anchored_updates"),
    "subspace": ("skada", "test_alignment.py", "subspace_is_skada_s"),
    "task_res": ("the paper's loss under torch's AdamW", "test_text_descent.py", "task_res_is_the_papers_loss"),
    "tca": ("its dense eigenproblem", "test_components.py", "linear_tca_from_small_matrices"),
    "tim": ("the updates in loops, autograd, and easyfsl", "test_tim.py", "predictions_equal_easyfsl"),
    "tip_adapter": ("the formula in loops", "test_tip_adapter_ape.py", "tip_adapter_is_equation_6"),
    "tip_adapter_f": ("autograd under torch's AdamW", "test_text_descent.py", "tip_adapter_f_trains_the_keys"),
    "tradaboost": ("the algorithm in loops", "test_source_weights.py", "tradaboost_follows_the_paper"),
    "transclip": ("the updates in loops", "test_transclip.py", "transclip_follows_the_updates"),
    "waffle": ("its own phrases scored by hand", "test_waffle.py", "embeds_the_phrases_the_strategy_writes"),
    "zero_shot": ("the weighted mean in loops", "test_zero_shot.py", "cosine_to_the_renormalised"),
}


def test_every_strategy_has_a_reference() -> None:
    assert set(REFERENCES) == {
        n for n, c in registry().strategies.items() if c.__module__.startswith("fewshot_plugins.")
    }


@pytest.mark.parametrize("name", REFERENCES)
def test_each_reference_has_its_test(name: str) -> None:
    _, file, part = REFERENCES[name]
    tree = ast.parse(Path(__file__).with_name(file).read_text(encoding="utf-8"))
    assert [
        n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_") and part in n.name
    ]
