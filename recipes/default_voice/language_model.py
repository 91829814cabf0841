"""The speech model of the default voice as trained: Llama blocks over text and summed code rows.

Parameter names are the checkpoint's. Tokens of a whole batch are computed flat, [tokens, width],
and padded to one fixed count, so that the pieces between the attentions can be compiled once.
Sampling here is for choosing checkpoints; the engine has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto.model_executor.frontends.phones import TOKENS

__all__ = ["GPTShape", "SpeechGPT"]


@dataclass(frozen=True)
class GPTShape:
    """Sizes; ``codes`` counts the end code, which is the last."""

    width: int = 256
    heads: int = 4
    layers: int = 5
    mlp: int = 704
    codebooks: int = 4
    codes: int = 626
    speakers: int = 2
    guided_layers: tuple[int, ...] = (1, 2)
    phone_layer: int = 2


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (Zhang & Sennrich 2019), eps 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Any leading shape."""
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        return (x * scale).to(x.dtype) * self.weight.to(x.dtype)


def rotary(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [tokens, size], rotate-half convention, base 10000 (Su 2021)."""
    frequency = 10_000.0 ** (-torch.arange(0, size, 2, device=positions.device) / size)
    angle = positions[:, None].float() * frequency
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        for name in "qkvo":
            self.add_module(f"{name}_proj", nn.Linear(width, width, bias=False))


class _MLP(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = F.silu(self.gate_proj(x)) * self.up_proj(x)
        out: Tensor = self.down_proj(inner)
        return out


class Layer(nn.Module):
    """One Llama block, split around its attention."""

    def __init__(self, shape: GPTShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.input_layernorm = RMSNorm(shape.width)
        self.self_attn = _Attention(shape.width)
        self.post_attention_layernorm = RMSNorm(shape.width)
        self.mlp = _MLP(shape.width, shape.mlp)

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[tokens, width] to query, key, value, each [tokens, heads, size]."""
        y = self.input_layernorm(x)
        q, k, v = (
            self.self_attn.get_submodule(f"{name}_proj")(y).unflatten(-1, (self.heads, -1))
            for name in "qkv"
        )
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        return _rotate(q, cos, sin), _rotate(k, cos, sin), v

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """Residual stream and attention output, both [tokens, width], to the new stream."""
        x = x + self.self_attn.get_submodule("o_proj")(attended)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class _Llama(nn.Module):
    def __init__(self, shape: GPTShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width)


class SpeechGPT(nn.Module):
    """Text tokens and codes in, codes out."""

    def __init__(self, shape: GPTShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.gpt = _Llama(shape)
        self.emb_text = nn.Embedding(len(TOKENS), width)
        self.emb_code = nn.ModuleList(
            nn.Embedding(shape.codes, width) for _ in range(shape.codebooks)
        )
        self.head_code = nn.ModuleList(
            nn.Linear(width, shape.codes, bias=False) for _ in range(shape.codebooks)
        )
        self.speakers = nn.Embedding(shape.speakers, width)
        self.phone_head = nn.Linear(width, 3 * len(TOKENS))
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
        for table in (self.emb_text, self.speakers, *self.emb_code):
            nn.init.normal_(table.weight, std=0.3)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """[..., codebooks] to the sum of their rows, [..., width]."""
        return torch.stack([table(codes[..., i]) for i, table in enumerate(self.emb_code)]).sum(0)

    def logits(self, hidden: Tensor) -> Tensor:
        """[tokens, width] (after the final norm) to [tokens, codebooks, codes]."""
        return torch.stack([head(hidden) for head in self.head_code], -2)

    def embed_prompt(self, tokens: Tensor, speaker: Tensor) -> Tensor:
        """[batch, length] and [batch] to [batch, length, width]; position 1 is the speaker."""
        rows = self.emb_text(tokens)
        return torch.cat((rows[:, :1], self.speakers(speaker)[:, None], rows[:, 2:]), 1)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        speakers: Sequence[int],
        limits: Sequence[int],
        temperature: float,
        top_p: float,
        seed: int,
    ) -> list[Tensor]:
        """Sample all prompts in one batch: codes [frames, codebooks] of each.

        ``limits`` caps the frames of each row. The end code in any codebook ends a row.
        """
        generator = torch.Generator().manual_seed(seed)
        cache = _Cache(self, max(map(len, prompts)) + max(limits) + 1, len(prompts))
        hidden = cache.prefill(prompts, torch.tensor(speakers))
        frames: list[Tensor] = []
        ends = torch.tensor(limits)
        for step in range(max(limits)):
            logits = self.logits(hidden).float() / temperature
            codes = _sample(logits, top_p, generator)
            stopped = (codes == self.shape.codes - 1).any(-1)
            ends = torch.where(stopped & (ends > step), step, ends)
            if bool((ends <= step + 1).all()) and bool((ends <= step).all()):
                break
            codes = codes.clamp(max=self.shape.codes - 2)
            frames.append(codes)
            hidden = cache.step(self.embed_codes(codes))
        stacked = torch.stack(frames, 1)
        return [stacked[row, : int(end)] for row, end in enumerate(ends)]


def _sample(logits: Tensor, top_p: float, generator: torch.Generator) -> Tensor:
    """Nucleus sampling (Holtzman 2020) that always keeps three: [..., codes] to [...]."""
    ordered, index = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    keep = share.cumsum(-1) - share < top_p
    keep[..., :3] = True
    share = share.masked_fill(~keep, 0.0)
    noise = torch.empty_like(share).exponential_(generator=generator)
    return index.gather(-1, (share / noise).argmax(-1, keepdim=True))[..., 0]


class _Cache:
    """Keys and values of one generated batch; each row has its own length."""

    def __init__(self, model: SpeechGPT, length: int, batch: int) -> None:
        shape = model.shape
        size = shape.width // shape.heads
        self._model, self._batch, self._length = model, batch, length
        self._keys = torch.zeros(shape.layers, batch, shape.heads, length, size)
        self._values = torch.zeros_like(self._keys)
        self._position = torch.zeros(batch, dtype=torch.long)

    def _run(self, x: Tensor, positions: Tensor) -> Tensor:
        """[batch, count, width] at ``positions`` [batch, count] to final hidden states."""
        batch, count, width = x.shape
        shape = self._model.shape
        cos, sin = rotary(positions.flatten(), width // shape.heads)
        mask = torch.arange(self._length) <= positions[:, None, :, None]
        rows = torch.arange(batch)[:, None]
        flat = x.flatten(0, 1)
        for index, layer in enumerate(self._model.gpt.layers):
            assert isinstance(layer, Layer)
            q, k, v = (
                part.view(batch, count, *part.shape[1:]) for part in layer.before(flat, cos, sin)
            )
            self._keys[index][rows, :, positions] = k.float()
            self._values[index][rows, :, positions] = v.float()
            attended = F.scaled_dot_product_attention(
                q.transpose(1, 2).float(), self._keys[index], self._values[index], attn_mask=mask
            )
            flat = layer.after(flat, attended.transpose(1, 2).reshape(batch * count, width))
        hidden: Tensor = self._model.gpt.norm(flat)
        return hidden.view(batch, count, width)

    def prefill(self, prompts: Sequence[Sequence[int]], speakers: Tensor) -> Tensor:
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        hidden = self._run(self._model.embed_prompt(tokens, speakers), positions)
        self._position = lengths
        return hidden[torch.arange(len(prompts)), lengths - 1]

    def step(self, x: Tensor) -> Tensor:
        hidden = self._run(x[:, None], self._position[:, None])
        self._position = self._position + 1
        return hidden[:, 0]
