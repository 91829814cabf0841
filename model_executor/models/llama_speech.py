"""`LlamaSpeech`: a Llama that reads text and sums of codebook embeddings, and writes codebooks.

One class serves every model of this family; they differ in sizes (`LlamaConfig`,
`SpeechModelSpec`). It computes packed positions and knows nothing of sequences, blocks or sampling:
where positions live is the attention backend's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.nn.functional as F

from ..attention.interface import AttentionBackend, AttentionMetadata, CpuCaches
from ..interfaces import SpeechModelSpec
from ..layers.functional import rms_norm, rotary_table, rotate, silu_and_mul
from ..layers.linear import Linear, PanelLinear, fills_panels

if TYPE_CHECKING:
    from ..layers.cpu_stack import CpuStack
    from ..layers.cpu_team import Team


class TensorSource(Protocol):
    """Where weights come from: named tensors with known shapes."""

    def get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor by name, float32; `CheckpointError` when missing or misshapen."""

    def folded_weight(self, prefix: str, shape: tuple[int, int]) -> torch.Tensor:
        """`prefix.weight` with weight normalisation folded in, where the file has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """Sizes that `SpeechModelSpec` does not tell the core."""

    intermediate_size: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0


class Product(Protocol):
    """A weight that is ready to be multiplied."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] to [N, out], both in the weight's type."""


@dataclass(frozen=True, slots=True, eq=False)
class LlamaLayer:
    """Weights of one layer. Norms are [hidden] float32; products that share an input are fused."""

    input_norm: torch.Tensor
    qkv: Product  # hidden -> (num_heads + 2 * num_kv_heads) * head_dim
    attention_out: Product  # num_heads * head_dim -> hidden
    post_norm: torch.Tensor
    gate_up: Product  # hidden -> 2 * intermediate
    down: Product  # intermediate -> hidden


class LlamaSpeech:
    """The speech model on one device.

    Args:
        spec: what the model declares.
        config: further sizes.
        gpt: tensors of the transformer (`layers.0...`, `norm.weight`).
        embed: tensors of embeddings and heads (`emb_code.0.weight`, `head_code.0`, ...).
        dtype: of the layers' weights and activations, and on the CPU of the code head. The residual
            stream, norms, sums of embeddings and logits are float32.
        device: where the weights go.
    """

    def __init__(
        self,
        spec: SpeechModelSpec,
        config: LlamaConfig,
        gpt: TensorSource,
        embed: TensorSource,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.spec, self.config = spec, config
        self.dtype, self.device = dtype, device
        self._in_panels = fills_panels(self._layer_sizes(), dtype, device)
        self._team = _create_team() if self._in_panels else None
        self.layers = [self._load_layer(gpt, index) for index in range(spec.num_layers)]
        self._stack = None if self._team is None else self._create_stack(self._team)
        self.norm = gpt.get("norm.weight", (spec.hidden_size,)).clone().to(device)
        self.rotary = rotary_table(spec.max_model_len, spec.head_dim, config.rope_theta).to(device)
        self._load_embeddings(embed)

    def _layer_sizes(self) -> tuple[int, ...]:
        """Every width that a layer's products read or write, and that of a head."""
        spec = self.spec
        cached = spec.num_kv_heads * spec.head_dim
        query = spec.num_heads * spec.head_dim
        inner = self.config.intermediate_size
        return spec.hidden_size, query, query + 2 * cached, inner, spec.head_dim

    def _load_layer(self, source: TensorSource, index: int) -> LlamaLayer:
        spec, inner = self.spec, self.config.intermediate_size
        hidden, prefix = spec.hidden_size, f"layers.{index}"
        query, cached = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim

        def linear(outputs: dict[str, int], inputs: int, *, gated: bool = False) -> Product:
            parts = [
                source.get(f"{prefix}.{name}.weight", (size, inputs)).to(self.dtype)
                for name, size in outputs.items()
            ]
            weight = (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self.device)
            return PanelLinear(weight, gated=gated) if self._in_panels else Linear(weight)

        def norm(name: str) -> torch.Tensor:
            # A copy: what the source gives may keep a whole mapped file in memory.
            return source.get(f"{prefix}.{name}.weight", (hidden,)).clone().to(self.device)

        projections = {"q_proj": query, "k_proj": cached, "v_proj": cached}
        return LlamaLayer(
            input_norm=norm("input_layernorm"),
            qkv=linear({f"self_attn.{name}": size for name, size in projections.items()}, hidden),
            attention_out=linear({"self_attn.o_proj": hidden}, query),
            post_norm=norm("post_attention_layernorm"),
            gate_up=linear({"mlp.gate_proj": inner, "mlp.up_proj": inner}, hidden, gated=True),
            down=linear({"mlp.down_proj": hidden}, inner),
        )

    def _create_stack(self, team: Team) -> CpuStack:
        """All layers as one kernel, on the weights that the layers hold."""
        from ..layers.cpu_stack import CpuStack, StackShape

        spec = self.spec
        shape = StackShape(
            hidden_size=spec.hidden_size,
            intermediate_size=self.config.intermediate_size,
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            eps=self.config.rms_norm_eps,
        )
        norms = [(layer.input_norm, layer.post_norm) for layer in self.layers]
        weights = [
            tuple(
                cast(PanelLinear, product).panels
                for product in (layer.qkv, layer.attention_out, layer.gate_up, layer.down)
            )
            for layer in self.layers
        ]
        return CpuStack(shape, norms, weights, self.dtype, team)

    def _load_embeddings(self, source: TensorSource) -> None:
        spec, hidden = self.spec, self.spec.hidden_size
        codes = (spec.codebook_size, hidden)
        text = (spec.text_vocab_size, hidden)
        books = range(spec.num_codebooks)
        tables = [source.get(f"emb_code.{book}.weight", codes) for book in books]
        heads = [source.folded_weight(f"head_code.{book}", codes) for book in books]
        self._code_table = torch.cat(tables).to(self.device)
        self._code_head = self._create_head(torch.cat(heads).to(self.device))
        self._offsets = torch.arange(spec.num_codebooks, device=self.device) * spec.codebook_size
        self._text_table = source.get("emb_text.weight", text).to(self.dtype).to(self.device)
        self._text_head: Linear | None = None
        if spec.text_eos_id is not None:
            head = source.folded_weight("head_text", text)
            self._text_head = Linear(head.to(self.dtype).to(self.device))

    def _create_head(self, weight: torch.Tensor) -> Product:
        if self._team is None:
            return Linear(weight)
        from ..layers.cpu_head import CpuHead

        return CpuHead(weight.to(self.dtype), self._team)

    def embed_text(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [N, hidden] float32 of text ids int64 [N]."""
        return F.embedding(token_ids, self._text_table).float()

    def embed_frames(self, codes: torch.Tensor) -> torch.Tensor:
        """Sums [N, hidden] float32 of the codebooks' embeddings of int64 [N, num_codebooks]."""
        if self._stack is not None:
            from ..layers.cpu_rows import sum_embeddings

            return sum_embeddings(self._code_table, codes)
        return F.embedding(codes + self._offsets, self._code_table).sum(1)

    def forward(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        metadata: AttentionMetadata,
        attention: AttentionBackend,
    ) -> torch.Tensor:
        """Run the layers over packed positions.

        Args:
            embeddings: [N, hidden] float32; overwritten.
            positions: int64 [N], each position's index in its sequence.
            metadata: where the positions belong.
            attention: holds the KV cache.

        Returns:
            [N, hidden] float32, before the final norm.
        """
        cos_sin = self.rotary[positions]
        caches: CpuCaches | None = getattr(attention, "cpu_caches", None)
        if self._stack is not None and caches is not None:
            self._stack.run(embeddings, cos_sin, metadata, caches)
            return embeddings
        for index in range(len(self.layers)):
            self._run_layer(index, embeddings, cos_sin, metadata, attention)
        return embeddings

    def _run_layer(
        self,
        index: int,
        residual: torch.Tensor,
        cos_sin: torch.Tensor,
        metadata: AttentionMetadata,
        attention: AttentionBackend,
    ) -> None:
        """One layer in plain torch, on any device: adds to the residual stream."""
        layer, eps = self.layers[index], self.config.rms_norm_eps
        normed = rms_norm(residual, layer.input_norm, eps).to(self.dtype)
        attended = self._attend(index, layer.qkv(normed), cos_sin, metadata, attention)
        residual += layer.attention_out(attended)
        normed = rms_norm(residual, layer.post_norm, eps).to(self.dtype)
        residual += layer.down(silu_and_mul(layer.gate_up(normed)))

    def _attend(
        self,
        index: int,
        qkv: torch.Tensor,
        cos_sin: torch.Tensor,
        metadata: AttentionMetadata,
        attention: AttentionBackend,
    ) -> torch.Tensor:
        """Attention of one layer: fused projections [N, ...] to [N, num_heads * head_dim]."""
        spec = self.spec
        cached = spec.num_heads + spec.num_kv_heads
        heads = qkv.view(len(qkv), -1, spec.head_dim)
        heads[:, :cached] = rotate(heads[:, :cached], cos_sin)
        query, key = heads[:, : spec.num_heads], heads[:, spec.num_heads : cached]
        value = heads[:, cached:]
        return attention.forward(index, query, key, value, metadata).flatten(1)

    def final_norm(self, residual: torch.Tensor) -> torch.Tensor:
        """Hidden states [S, hidden] float32 from rows of what `forward` returned."""
        if self._stack is not None:
            from ..layers.cpu_rows import rms_norm as compiled_norm

            return compiled_norm(residual, self.norm, self.config.rms_norm_eps)
        return rms_norm(residual, self.norm, self.config.rms_norm_eps)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Codebook logits [S, num_codebooks, codebook_size] float32 of hidden states."""
        return self._code_head(hidden).view(len(hidden), self.spec.num_codebooks, -1)

    def text_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Text logits [S, 1, text_vocab_size] float32 of hidden states.

        Raises:
            ValueError: the model has no text head.
        """
        if self._text_head is None:
            raise ValueError("this model has no text head")
        return self._text_head(hidden.to(self.dtype)).float()[:, None]


def _create_team() -> Team:
    from ..layers.cpu_team import Team

    return Team()
