"""The fused cells of recurrent layers, which torch calls on every device but the CPU, and the CPU has no kernel for."""

import torch
from torch import Tensor


def register() -> torch.library.Library:
    """Give the device its fused cells; they are its own as long as what is returned lives."""
    library = torch.library.Library("aten", "IMPL")
    for name, cell in {
        "_thnn_fused_lstm_cell": _lstm,
        "_thnn_fused_lstm_cell_backward_impl": _lstm_backward,
        "_thnn_fused_gru_cell": _gru,
        "_thnn_fused_gru_cell_backward": _gru_backward,
    }.items():
        library.impl(name, cell, "PrivateUse1")
    return library


def _lstm(x, h, cx, x_bias=None, h_bias=None):
    gates = x + h if x_bias is None else x + x_bias + (h + h_bias)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cy = f * cx + i * g
    return o * cy.tanh(), cy, torch.cat([i, f, g, o], 1)


def _lstm_backward(grad_hy, grad_cy, cx, cy, workspace, has_bias):
    i, f, g, o = workspace.chunk(4, 1)
    grad_hy = torch.zeros_like(cy) if grad_hy is None else grad_hy
    grad_cy = torch.zeros_like(cy) if grad_cy is None else grad_cy
    at = cy.tanh()
    of_cell = grad_hy * o * (1 - at * at) + grad_cy
    gates = torch.cat(
        [of_cell * g * i * (1 - i), of_cell * cx * f * (1 - f), of_cell * i * (1 - g * g), grad_hy * at * o * (1 - o)],
        1,
    )
    return gates, of_cell * f, gates.sum(0) if has_bias else torch.Tensor()


def _gru(x, h, hx, x_bias=None, h_bias=None):
    if x_bias is not None:
        x, h = x + x_bias, h + h_bias
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, 1), h.chunk(3, 1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return n + z * (hx - n), torch.cat([r, z, n, hx, hn], 1)


def _gru_backward(grad_hy, workspace, has_bias):
    r, z, n, hx, hn = workspace.chunk(5, 1)
    of_n = grad_hy * (1 - z) * (1 - n * n)
    of_z = grad_hy * (hx - n) * z * (1 - z)
    of_r = of_n * hn * r * (1 - r)
    x, h = torch.cat([of_r, of_z, of_n], 1), torch.cat([of_r, of_z, of_n * r], 1)
    bias: tuple[Tensor | None, Tensor | None] = (x.sum(0), h.sum(0)) if has_bias else (None, None)
    return x, h, grad_hy * z, *bias
