"""The denoiser: MAISI's UNet with cross-attention, spacing and modality inputs, built from a configuration."""

from __future__ import annotations

from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from pydantic import BaseModel, ConfigDict

# MAISI's number for the modality CT, the only one used.
CT_CLASS = 1
# MAISI's spacing input is millimetres times 100.
SPACING_UNITS_PER_MM = 100.0


class UnetConfig(BaseModel):
    """Configuration of ``diffusion_unet_maisi``; the defaults are the released model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: int = 4
    out_channels: int = 4
    num_channels: tuple[int, ...] = (64, 128, 256, 512)
    attention_levels: tuple[bool, ...] = (False, False, True, True)
    num_head_channels: tuple[int, ...] = (0, 0, 32, 32)
    num_res_blocks: int | tuple[int, ...] = 2
    cross_attention_dim: int = 768
    norm_num_groups: int = 32
    num_class_embeds: int = 128
    resblock_updown: bool = True
    include_fc: bool = True
    include_spacing_input: bool = True
    transformer_num_layers: int = 1


class Unet(DiffusionModelUNetMaisi):
    """The velocity network.

    Args:
        config: :class:`UnetConfig`.
    """

    def __init__(self, config: UnetConfig) -> None:
        super().__init__(
            spatial_dims=3,
            with_conditioning=True,
            use_flash_attention=False,
            include_top_region_index_input=False,
            include_bottom_region_index_input=False,
            **config.model_dump(),
        )
        self.config = config
