"""Captum, which approximates in torch what is exact here, on the bundled model."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerConductance, Saliency

from export.attribution.attribute import Method, Question, attribute, needed_stages
from export.attribution.network import Network
from export.network import network_of
from export.runtimes import Runner

IMAGES, STEPS = 6, (16, 64, 256, 1024)


@pytest.fixture(scope="module")
def torch_network(bundle_network: Network, weights: dict[str, np.ndarray]) -> torch.nn.Module:
    return network_of(bundle_network.stages, weights)


@pytest.fixture(scope="module")
def pixels(test_pixels: np.ndarray) -> np.ndarray:
    return test_pixels[:IMAGES]


def ours(network: Network, onnx: Runner, pixels: np.ndarray, method: Method) -> np.ndarray:
    values = onnx.trace(pixels, needed_stages(network, method))
    return attribute(network, values, Question(method, target_class=3)).contributions


def test_linear_region_is_captums_gradient_times_input(
    bundle_network: Network, onnx: Runner, torch_network: torch.nn.Module, pixels: np.ndarray
) -> None:
    found = ours(bundle_network, onnx, pixels, "linear_region")
    images = torch.from_numpy(pixels).requires_grad_()
    captum = InputXGradient(torch_network).attribute(images, target=3).detach().numpy()
    np.testing.assert_allclose(found, captum, rtol=1e-4, atol=1e-5)


def test_saliency_is_captums_gradient(
    bundle_network: Network, onnx: Runner, torch_network: torch.nn.Module, pixels: np.ndarray
) -> None:
    found = ours(bundle_network, onnx, pixels, "saliency")
    images = torch.from_numpy(pixels).requires_grad_()
    captum = Saliency(torch_network).attribute(images, target=3, abs=False).numpy()
    np.testing.assert_allclose(found, captum, rtol=1e-4, atol=1e-5)


def test_captums_integrated_gradients_approach_ours_with_more_steps(
    bundle_network: Network, onnx: Runner, torch_network: torch.nn.Module, pixels: np.ndarray
) -> None:
    found = ours(bundle_network, onnx, pixels, "integrated_gradients")
    network, images = torch_network.double(), torch.from_numpy(pixels).double()
    captum = IntegratedGradients(network)
    errors = []
    for steps in STEPS:
        approximation = captum.attribute(images, target=3, n_steps=steps, internal_batch_size=4096)
        errors.append(np.abs(approximation.numpy() - found).max())
    assert all(fine < coarse / 2 for coarse, fine in pairwise(errors)), errors
    assert errors[-1] < 1e-3 * np.abs(found).max()


def test_captums_conductance_approaches_ours_with_more_steps(
    bundle_network: Network, onnx: Runner, torch_network: torch.nn.Module, pixels: np.ndarray
) -> None:
    values = onnx.trace(pixels[:4], needed_stages(bundle_network, "integrated_gradients"))
    question = Question("integrated_gradients", 3, stage="relu")
    found = attribute(bundle_network, values, question).stage_contributions
    network, images = torch_network.double(), torch.from_numpy(pixels[:4]).double()
    relu = dict(network.named_modules())["layers.relu"]
    captum = LayerConductance(network, relu)
    errors = [
        np.abs(captum.attribute(images, target=3, n_steps=steps).detach().numpy() - found).max()
        for steps in (16, 1024)
    ]
    assert errors[1] < errors[0] / 8
