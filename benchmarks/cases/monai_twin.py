"""MONAI's networks of our specifications: the peers of the latent diffusion model."""

from monai.networks.nets import AutoencoderKL, DiffusionModelUNet

from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.network_file import Spec


def twin_of(spec: Spec, *, flash: bool = False) -> AutoencoderKL | DiffusionModelUNet:
    """The network, freshly made; `flash` lets a U-Net use PyTorch's fused attention."""
    if isinstance(spec, AutoencoderSpec):
        return AutoencoderKL(
            spatial_dims=2,
            channels=spec.channels,
            num_res_blocks=spec.blocks,
            attention_levels=(False,) * len(spec.channels),
            latent_channels=spec.latent,
            norm_num_groups=spec.groups,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
    return DiffusionModelUNet(
        spatial_dims=2,
        in_channels=spec.latent,
        out_channels=spec.latent,
        channels=spec.channels,
        attention_levels=spec.attention,
        num_head_channels=spec.heads,
        num_res_blocks=spec.blocks,
        norm_num_groups=spec.groups,
        with_conditioning=spec.context is not None,
        cross_attention_dim=spec.context,
        use_flash_attention=flash,
    )
