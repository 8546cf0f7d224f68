"""ImageNet weights of torchvision's ConvNeXt as a start for the backbone.

Contract: a state dict maps torchvision's names (`features.0.0.weight`, ...) to NumPy arrays. Its
classifier has no place here and is left out; everything else must fit.
"""

from collections.abc import Mapping

import numpy as np
from flax import nnx

from deepssim_jax.interop import reference_networks
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.embedder import Embedder

_CLASSIFIER = "classifier."


def load_backbone(model: Embedder, state_dict: Mapping[str, np.ndarray]) -> None:
    """Puts torchvision's weights into the backbone of a network; the head keeps its own.

    Args:
      model: any ConvNeXt embedder; with one or two input channels the stem gets the sum, or each
        its share, of what the three channels had.
      state_dict: of `convnext_tiny` and so on.

    Raises:
      ValueError: with every name and shape that does not fit.
    """
    encoder = encoders.from_module(model)
    theirs = reference_networks.backbone_names(encoder)
    given = {n: v for n, v in state_dict.items() if not n.startswith(_CLASSIFIER)}
    channels = model.spec.backbone.channels
    stem = "features.0.0.weight"
    if channels != 3 and stem in given and given[stem].ndim == 4 and given[stem].shape[1] == 3:
        # A grey image repeated three times gives the same response as one channel of the sum.
        one = given[stem].sum(1, keepdims=True) / channels
        given[stem] = np.repeat(one, channels, axis=1)
    wanted = dict(theirs.values())
    wrong = encoders.misfits(wanted, {n: tuple(v.shape) for n, v in given.items()})
    if wrong:
        raise ValueError(f"these are not this backbone's weights: {'; '.join(wrong)}")
    tensors = encoders.to_tensors(encoder)
    for ours, (name, _) in theirs.items():
        tensors[ours] = reference_networks.to_ours(encoder, ours, given[name])
    nnx.update(model, encoders.from_tensors(model.spec, tensors).state)
