"""What each operation of PyTorch says of the units of the tensors that it takes and gives.

A rule gets the units known so far and a call that was made. It says which units are one and which are fixed,
and which the result has. Operations without a rule are refused, so that nothing is taken for a symmetry that
is none.
"""

from __future__ import annotations

from collections.abc import Callable

from tombola.networks import unit_layers, unit_shapes
from tombola.networks.units import Operation, UnitMap

Rule = Callable[[UnitMap, Operation], None]


def _under(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_under(
        unit_shapes.elementwise,
        "add sub mul div truediv true_divide neg abs exp log log1p sqrt rsqrt square reciprocal pow sign "
        "relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh sigmoid tanh "
        "softplus softsign logsigmoid threshold clamp clamp_min clamp_max erf sin cos tanhshrink softshrink "
        "hardshrink dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout "
        "feature_alpha_dropout contiguous clone detach data to float double half bfloat16 type_as "
        "requires_grad identity "
        "softmax log_softmax normalize maximum minimum where lerp addcmul addcdiv masked_fill fmax fmin "
        "zeros_like ones_like full_like rsub gt ge lt le eq ne",
    ),
    **_under(
        unit_shapes.movement,
        "flatten view view_as reshape reshape_as permute transpose t T mT movedim moveaxis swapaxes swapdims "
        "squeeze unsqueeze expand expand_as chunk split split_with_sizes tensor_split unbind getitem narrow "
        "select index_select flip roll repeat repeat_interleave tile unflatten pixel_shuffle pixel_unshuffle "
        "channel_shuffle native_channel_shuffle broadcast_to iter",
    ),
    **_under(unit_shapes.concatenation, "cat concat concatenate stack"),
    **_under(unit_shapes.padding, "pad constant_pad_nd"),
    **_under(unit_layers.linear, "linear"),
    **_under(unit_layers.product, "matmul bmm mm"),
    **_under(
        unit_layers.convolution,
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    ),
    **_under(unit_layers.channel_norm, "batch_norm instance_norm"),
    **_under(unit_layers.group_norm, "group_norm"),
    **_under(unit_layers.layer_norm, "layer_norm rms_norm"),
    **_under(unit_layers.prelu, "prelu"),
    **_under(
        unit_shapes.pooling,
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
        "interpolate upsample",
    ),
    **_under(
        unit_shapes.reduction,
        "mean sum amax amin var std logsumexp norm linalg_vector_norm vector_norm prod "
        "max min argmax argmin median",
    ),
    **_under(unit_layers.embedding, "embedding"),
    **_under(unit_shapes.gating, "glu"),
    **_under(unit_layers.attention, "scaled_dot_product_attention"),
    **_under(unit_layers.multi_head_attention, "multi_head_attention_forward"),
}
