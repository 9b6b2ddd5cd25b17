"""The sampling engine: many calls of many agents, in slots over one cache."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding

from arkjax.errors import ConfigError, DataError
from arkjax.models.transformer import Transformer
from arkjax.sampling import decode
from arkjax.sampling.compiling import compile_seconds
from arkjax.sampling.continuations import Pair, score_continuations
from arkjax.sampling.engine_config import EngineConfig
from arkjax.sampling.engine_profile import EngineProfile
from arkjax.sampling.generating import generate_all, refuse_pending
from arkjax.sampling.lane import Lane
from arkjax.sampling.params import Generation, Request
from arkjax.sampling.precision import check_precision, weights_for
from arkjax.sampling.scoring import Scored, check_ids, score
from arkjax.sampling.stopping import StopTexts
from arkjax.text.tokenizer import Tokenizer

__all__ = ["Engine", "EngineConfig", "EngineProfile"]

# Blocks of a busy lane that another lane, less than half full, waits for more calls.
_PATIENCE = 8


class Engine:
    """Generates calls with one model; implements `arkjax.sampling.params.Generator`.

    The tokens of a call depend on the weights, its prompt, its sampling and its seed only: not on
    its slot, on the calls beside it, or on the order of arrival.

    Attributes:
      config: sizes.
      max_context: tokens of prompt and answer that a call may have.
      profile: where the time has gone so far; see `EngineProfile`.
    """

    def __init__(
        self, model: Transformer, config: EngineConfig, tokenizer: Tokenizer | None = None
    ):
        """Set up an engine; nothing is compiled and no cache allocated before the first call.

        Args:
          model: generates.
          config: sizes.
          tokenizer: finds stop texts; calls that have some need it.

        Raises:
          ConfigError: if prefixes shall be grouped on a mesh that spreads slots over devices, or
            something kept in int8 that cannot be.
        """
        self.config = config
        self.max_context = config.length_classes[-1]
        self.profile = EngineProfile()
        self._tokenizer = tokenizer
        check_precision(config)
        self._form = _form(model)
        # All lanes and their prefix caches have this very dict.
        model_config, self._weights = weights_for(model, config.weights)
        place = self._weights["embedding"].sharding
        # A mesh of one device as well: it need not be the default one.
        mesh = place.mesh if isinstance(place, NamedSharding) else None
        self._spec = decode.Spec(model_config, mesh)
        if config.grouped_prefixes:
            decode.check_grouped(self._spec)
        self._lanes: dict[int, Lane] = {}
        self._busy: dict[str, int] = {}
        self._patience: dict[int, int] = {}
        self._lapped, self._compiled = time.monotonic(), compile_seconds()

    @property
    def vocab_size(self) -> int:
        """V, how many token ids the model knows."""
        return self._spec.config.vocab_size

    @property
    def dtype(self) -> str:
        """Of the computation."""
        return self._spec.config.dtype

    @property
    def pending(self) -> int:
        """Requests submitted and not yet returned."""
        return len(self._busy)

    def check(self, request: Request) -> None:
        """See that a request can be generated; nothing is queued.

        Raises:
          DataError: if a token id is none of the model's, prompt and answer cannot fit into the
            longest lane, or the lengths of shared prefixes are impossible.
          ConfigError: if the request asks for more than the engine was set up for.
        """
        check_ids(request.prompt_ids, self.vocab_size, f"call {request.id}: the prompt")
        if request.sampling.stop_ids:
            name = f"call {request.id}: sampling.stop_ids"
            check_ids(request.sampling.stop_ids, self.vocab_size, name)
        need = len(request.prompt_ids) + request.sampling.max_tokens
        if need > self.max_context:
            raise DataError(
                f"call {request.id}: {len(request.prompt_ids)} prompt tokens and up to "
                f"{request.sampling.max_tokens} generated ones do not fit into the engine's "
                f"longest context, {self.max_context}: raise engine.length_classes or "
                "shorten the prompt"
            )
        if not 0 <= request.prefix_len < len(request.prompt_ids):
            raise DataError(
                f"call {request.id}: prefix_len is {request.prefix_len} of "
                f"{len(request.prompt_ids)} prompt tokens: at least one must follow the prefix"
            )
        if len(request.sampling.stop_ids) > self.config.max_stop_ids:
            raise ConfigError(
                f"call {request.id} has {len(request.sampling.stop_ids)} stop ids: "
                f"engine.max_stop_ids is {self.config.max_stop_ids}"
            )
        if request.sampling.top_logprobs > self.config.max_top_logprobs:
            raise ConfigError(
                f"call {request.id} asks for {request.sampling.top_logprobs} top logprobs: "
                f"engine.max_top_logprobs is {self.config.max_top_logprobs}"
            )
        if request.sampling.stop and self._tokenizer is None:
            raise ConfigError(
                f"call {request.id} has stop texts: the engine needs a tokenizer to find them"
            )
        inner = (0, *request.shared, request.prefix_len)
        if request.shared and any(a >= b for a, b in itertools.pairwise(inner)):
            raise DataError(
                f"call {request.id}: shared is {request.shared}, expected lengths that ascend and "
                f"stay below prefix_len, {request.prefix_len}"
            )

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
          DataError, ConfigError: as `check`; DataError also if the id is taken.
        """
        self.check(request)
        if request.id in self._busy:
            raise DataError(f"call {request.id} was submitted twice")
        need = len(request.prompt_ids) + request.sampling.max_tokens
        length = next(n for n in self.config.length_classes if n >= need)
        if not self._busy:
            self._lap()
        self._busy[request.id] = length
        self._lane(length).submit(request)

    def warm_up(
        self,
        *,
        prefixes: bool = True,
        top_logprobs: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile all that calls may need; after this no call waits for the compiler.

        Every program runs once, on no call. A lane has one for each width that prompts are padded
        to, times, if calls may have prefixes, the halvings of its length that they may reach to:
        some hundreds with `chunk=64` and 4,096 positions. A larger `chunk` makes them fewer, and
        JAX's compilation cache (JAX_COMPILATION_CACHE_DIR) keeps them for the next process.

        Args:
          prefixes: calls may have shared prefixes, or prompts of more than `prefill_tokens`.
          top_logprobs: calls may ask for the most probable tokens.
          progress: told after each program how many are warm, and of how many.

        Raises:
          RuntimeError: if calls are pending: their tokens would be lost.
        """
        refuse_pending(self)
        lanes = [self._lane(length) for length in self.config.length_classes]
        programs = [run for lane in lanes for run in lane.programs(prefixes, top_logprobs)]
        for i, run in enumerate(programs):
            run()
            if progress:
                progress(i + 1, len(programs))
        for lane in lanes:
            lane.wait()
        self.profile.reset()

    def update(self, model: Transformer) -> None:
        """Generate with other weights of the same model from now on, as one in training has them.

        Nothing is compiled and nothing leaves the devices. The engine then is as a new one of these
        weights: prefixes that the old ones have computed are forgotten, and so is what was learned
        of the length of answers. The old weights are let go before the new ones are laid out, and
        what the engine keeps is its own: the model's arrays may be donated afterwards.

        Args:
          model: of the config, shapes and dtypes of the one that the engine was made with; its
            weights may lie elsewhere.

        Raises:
          RuntimeError: if calls are pending: they began with the old weights.
          ConfigError: if it is another model; the engine goes on with the old weights.
        """
        refuse_pending(self)
        form = _form(model)
        if form != self._form:
            differing = [name for name in form if form[name] != self._form.get(name)]
            raise ConfigError(
                f"the engine was made for another model: {', '.join(differing[:3])} differ. Give "
                "`Engine.update` weights of the same config, shapes and dtypes, or make an engine"
            )
        places = jax.tree.map(lambda weight: weight.sharding, self._weights)
        self._weights.clear()
        _, weights = weights_for(model, self.config.weights)
        given = {id(array) for array in jax.tree.leaves(model.arrays())}

        def own(weight: jax.Array, place: jax.sharding.Sharding) -> jax.Array:
            if weight.sharding != place:
                return jax.device_put(weight, place, may_alias=False)
            return weight.copy() if id(weight) in given else weight

        self._weights.update(jax.tree.map(own, weights, places))
        self._patience.clear()
        for lane in self._lanes.values():
            lane.renew()

    def step(self) -> list[Generation]:
        """Advance the lanes by one block; returns the calls that ended.

        A block costs the same however few of its slots are busy. So while one lane is busy, one
        that is less than half full waits for more calls, for a few blocks at the most.
        """
        with self.profile.time("seconds"):
            return self._step()

    def _step(self) -> list[Generation]:
        ended: list[Generation] = []
        half = self.config.slots // 2
        one_is_busy = any(lane.load >= half for lane in self._lanes.values())
        for length, lane in self._lanes.items():
            patience = self._patience.get(length, _PATIENCE)
            if one_is_busy and lane.load < half and patience > 0:
                self._patience[length] = patience - 1
                continue
            self._patience[length] = _PATIENCE
            ended += lane.step()
        for generation in ended:
            del self._busy[generation.request_id]
        return ended

    def partial(self, request_id: str) -> Generation:
        """What a pending call has generated so far; its `finish_reason` is PENDING."""
        return self._lanes[self._busy[request_id]].partial(request_id)

    def cancel(self, request_id: str | None = None) -> None:
        """Forget a pending call, or all of them, also after an error in the middle of a step."""
        if request_id is not None:
            self._lanes[self._busy.pop(request_id)].cancel(request_id)
            return
        # Arrays that were being replaced are gone, so all lanes start anew.
        self._lanes.clear()
        self._busy.clear()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate all requests; returns the generations in the order of the requests.

        Raises:
          DataError, ConfigError: as `submit`; no request of the list stays behind then.
          RuntimeError: if calls are pending that `submit` took: this would lose them.
        """
        return generate_all(self, requests)

    def score(self, sequences: Sequence[Sequence[int]], top: int = 0) -> list[Scored]:
        """Log-probabilities of given tokens, by the forward pass that training uses.

        Args:
          sequences: token ids; all but the first token of each are scored.
          top: how many of the most probable tokens to report at each position, with the mass of
            the rest.

        Raises:
          DataError: naming a sequence that is empty, longer than `max_context` or not made of the
            model's token ids.
        """
        widths = dataclasses.replace(self.config, prefill_tokens=self.max_context)
        return score(
            self._spec,
            self._weights,
            sequences,
            widths.widths(self.max_context),
            self.config.prefill_tokens,
            top,
            self.profile,
        )

    def score_continuations(
        self, pairs: Sequence[Pair], progress: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        """Log-probabilities of targets after their prompts, what prompts share computed once.

        The figures are those of `score` up to rounding: about 1e-5 in fp32. `profile` counts the
        tokens of the sequences (`scored_tokens`) and those computed for them (`scoring_tokens`).
        For as long as it takes, there is one more prefix cache beside those of the lanes.

        Args:
          pairs: prompts and targets as token ids; neither may be empty.
          progress: told how many pairs have been done since it was told last.

        Returns:
          For each pair [T] f32, the log-probability of each of its T target tokens.

        Raises:
          DataError: naming a pair that is empty, longer than `max_context` or not made of the
            model's token ids.
        """
        return score_continuations(
            self._spec, self._weights, self.config, pairs, self.profile, progress
        )

    def _lane(self, length: int) -> Lane:
        if length not in self._lanes:
            self._lanes[length] = Lane(
                self._spec,
                self._weights,
                self.config,
                length,
                self._stopping,
                self._lap,
                self.profile,
            )
        return self._lanes[length]

    def _stopping(self, request: Request) -> StopTexts | None:
        if not request.sampling.stop:
            return None
        return StopTexts(self._tokenizer, request.sampling.stop_ids, request.sampling.stop)

    def _lap(self) -> float:
        """Seconds since the last call of this: what the calls that just advanced have taken.

        Without those of the compiler, whose work serves all that come later.
        """
        before, self._lapped = self._lapped, time.monotonic()
        compiled, self._compiled = self._compiled, compile_seconds()
        return max(self._lapped - before - (self._compiled - compiled), 0.0)


def _form(model: Transformer) -> dict[str, object]:
    """What tells whether two models differ in their weights alone."""
    arrays = jax.tree.map(lambda weight: (weight.shape, weight.dtype.name), model.arrays())
    return {"config": model.config, **arrays}
