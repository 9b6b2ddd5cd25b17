"""One engine for each data replica of a model: the replicas of a host, and of many hosts."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Sequence

import jax
import numpy as np

from arkjax.errors import ConfigError, DataError
from arkjax.models.replication import model_mesh, owner, replica_meshes, replicate
from arkjax.models.transformer import Transformer
from arkjax.sampling.agreement import differing, digests, each_digest, refuse
from arkjax.sampling.continuations import Pair, checked_pairs
from arkjax.sampling.division import Router, balance, divide
from arkjax.sampling.engine import Engine
from arkjax.sampling.engine_config import EngineConfig
from arkjax.sampling.exchange import Exchange
from arkjax.sampling.packing import pack, unpack
from arkjax.sampling.params import Generation, Request
from arkjax.sampling.scoring import Scored, checked
from arkjax.text.tokenizer import Tokenizer

Watch = Callable[[int], None]


class Replicas:
    """Stands where `Engine` does, with an engine for each data replica of the model's mesh.

    Every engine has a whole copy of the weights on devices of its own, its own lanes and its own
    prefixes, and is driven by a thread of its own. The tokens of a call are those of one engine:
    they depend on the weights, its prompt, its sampling and its seed only.

    On a mesh over several processes (`jax.distributed`), make it and call `generate` in all of
    them, each time with the same list. All other methods are about the replicas of this process.

    Attributes:
      config: sizes of each engine.
      max_context: tokens of prompt and answer that a call may have.
      engines: those of this process; each has a profile.
    """

    def __init__(
        self,
        model: Transformer,
        config: EngineConfig,
        tokenizer: Tokenizer | None = None,
        *,
        timeout: float = 1800.0,
        silence: float = 30.0,
    ):
        """Set up the engines; nothing is compiled and no cache allocated before the first call.

        Weights that "fsdp" divides are gathered into every replica, which needs room for them.

        Args:
          model: generates; on a mesh whose "data" and "fsdp" axes are unrolled into replicas.
          config: sizes of each engine.
          tokenizer: finds stop texts; calls that have some need it.
          timeout: seconds without progress after which another process is not waited for.
          silence: seconds without a sign of life after which another process counts as dead. JAX
            itself ends all processes some time after one has died (100 s, see
            `jax.distributed.initialize`), and at once if it was the first.

        Raises:
          ConfigError: if a replica would lie on the devices of several processes, or none on
            those of this one.
        """
        self.config = config
        self.max_context = config.length_classes[-1]
        self._model_config = model.config
        mesh = model_mesh(model)
        meshes = [] if mesh is None else replica_meshes(mesh)
        me = jax.process_index()
        self._owners = [owner(part) for part in meshes] or [me]
        if me not in self._owners:
            raise ConfigError(
                f"no replica of the model lies on the devices of process {me}: make a mesh of all "
                "devices, or call this only in the processes of the mesh"
            )
        models = [model]
        if mesh is not None:
            models = replicate(model, [part for part in meshes if owner(part) == me])
        self.engines = tuple(Engine(one, config, tokenizer) for one in models)
        self._threads = concurrent.futures.ThreadPoolExecutor(
            len(self.engines), thread_name_prefix="arkjax-replica"
        )
        lanes = len(config.length_classes)
        self._router = Router(len(self.engines), 4 * len(self.engines) * lanes * config.prefixes)
        processes = sorted(set(self._owners))
        self._exchange = Exchange(processes, timeout, silence) if len(processes) > 1 else None

    @property
    def pending(self) -> int:
        """Requests submitted in this process and not yet returned."""
        return sum(engine.pending for engine in self.engines)

    def check(self, request: Request) -> None:
        """See that a request can be generated; raises what `Engine.check` does."""
        self.engines[0].check(request)

    def submit(self, request: Request) -> None:
        """Queue a request in a replica of this process.

        It goes where its prefix is, or to the replica that has the least to do if that one has
        several calls less.

        Raises:
          DataError, ConfigError: as `Engine.submit`.
        """
        self.check(request)
        if request.id in self._router:
            raise DataError(f"call {request.id} was submitted twice")
        self.engines[self._router.take(request)].submit(request)

    def step(self) -> list[Generation]:
        """Advance all replicas of this process by one block, side by side; returns what ended."""
        busy = [engine for engine in self.engines if engine.pending]
        ended = [generation for some in self._each(Engine.step, busy) for generation in some]
        for generation in ended:
            self._router.end(generation.request_id)
        return ended

    def partial(self, request_id: str) -> Generation:
        """What a pending call has generated so far; its `finish_reason` is PENDING."""
        return self.engines[self._router.where(request_id)].partial(request_id)

    def cancel(self, request_id: str | None = None) -> None:
        """Forget a pending call, or all of them, also after an error in the middle of a step."""
        if request_id is not None:
            self.engines[self._router.where(request_id)].cancel(request_id)
            self._router.end(request_id)
            return
        for engine in self.engines:
            engine.cancel()
        self._router.clear()

    def warm_up(
        self,
        *,
        prefixes: bool = True,
        top_logprobs: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile all that calls may need, for each replica of this process; see `Engine.warm_up`.

        Args:
          prefixes, top_logprobs: as for `Engine.warm_up`.
          progress: told after each program how many of all replicas are warm, and of how many.
        """
        count, lock = 0, threading.Lock()

        def told(_: int, each: int) -> None:
            nonlocal count
            with lock:
                count += 1
                if progress:
                    progress(count, each * len(self.engines))

        self._each(
            lambda engine: engine.warm_up(
                prefixes=prefixes, top_logprobs=top_logprobs, progress=told
            ),
            self.engines,
        )

    def generate(self, requests: Sequence[Request], *, own_only: bool = False) -> list[Generation]:
        """Generate all requests; returns the generations in the order of the requests.

        On several hosts every process is to call this with the same list. Each makes its share;
        how the list is divided depends on it alone.

        Args:
          requests: the calls.
          own_only: return only what this process has made, and send nothing to others.

        Raises:
          DataError, ConfigError: as `Engine.submit`, before any work, in every process; DataError
            if processes were given different lists.
          ProcessError: if another process failed, or is not waited for any longer.
          RuntimeError: if calls are pending that `submit` took: this would lose them.
        """
        requests = list(requests)
        if self._exchange is None:
            self._check_all(requests)
            done = self._work(requests, _alone)
            return [done[request.id] for request in requests]
        with self._exchange.round():
            self._agree(requests, own_only)
            self._check_all(requests)
            done = self._work(requests, self._exchange.beat)
            if not own_only:
                mine = [done[request.id] for request in requests if request.id in done]
                everything = self._exchange.gather(pack(mine))
        if not own_only:
            for data in everything.values():
                done.update((generation.request_id, generation) for generation in unpack(data))
        return [done[request.id] for request in requests if request.id in done]

    def score(self, sequences: Sequence[Sequence[int]], top: int = 0) -> list[Scored]:
        """Score sequences with the replicas of this process; see `Engine.score`."""
        sequences = checked(sequences, self.max_context, self.engines[0].vocab_size)
        owners = balance([len(sequence) for sequence in sequences], len(self.engines))
        scored: dict[int, Scored] = {}

        def work(replica: int) -> None:
            members = [i for i, owner in enumerate(owners) if owner == replica]
            results = self.engines[replica].score([sequences[i] for i in members], top)
            scored.update(zip(members, results, strict=True))

        self._each(work, range(len(self.engines)))
        return [scored[i] for i in range(len(sequences))]

    def score_continuations(
        self, pairs: Sequence[Pair], progress: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        """Score with the replicas of this process; see `Engine.score_continuations`."""
        read = checked_pairs(pairs, self.max_context, self.engines[0].vocab_size)
        # Neighbours in this order share most: each replica gets a stretch of it.
        order = sorted(range(len(read)), key=lambda i: read[i])
        ends = np.cumsum([len(read[i][0]) + len(read[i][1]) for i in order])
        total = max(int(ends[-1]), 1) if read else 1
        scored: dict[int, np.ndarray] = {}

        def work(replica: int) -> None:
            share = (ends - 1) * len(self.engines) // total == replica
            members = [i for i, mine in zip(order, share, strict=True) if mine]
            results = self.engines[replica].score_continuations(
                [read[i] for i in members], progress
            )
            scored.update(zip(members, results, strict=True))

        self._each(work, range(len(self.engines)))
        return [scored[i] for i in range(len(read))]

    # --- the parts of `generate` -----------------------------------------------------------------

    def _agree(self, requests: Sequence[Request], own_only: bool) -> None:
        """Raise DataError if processes were asked for different things."""
        about = {
            **digests(requests),
            "own_only": str(own_only),
            "the engine's sizes": str(self.config),
            "the model's config": str(self._model_config),
        }
        told = self._exchange.begin(about)
        difference = differing(told)
        if difference:
            refuse(told, difference, self._exchange.gather(each_digest(requests)), requests)

    def _check_all(self, requests: Sequence[Request]) -> None:
        if self.pending:
            raise RuntimeError(f"{self.pending} calls are pending: step until they have ended")
        for request in requests:
            self.check(request)
        ids = collections.Counter(request.id for request in requests)
        twice = next((name for name, count in ids.items() if count > 1), None)
        if twice is not None:
            raise DataError(f"call {twice} was submitted twice")

    def _work(self, requests: Sequence[Request], watch: Watch) -> dict[str, Generation]:
        """Generate this process's share of a list.

        Args:
          requests: the whole list.
          watch: called about every second with a number that grows as long as work goes on; an
            error that it raises ends the work.
        """
        shares: dict[int, list[Request]] = collections.defaultdict(list)
        owners = divide(requests, len(self._owners))
        for request, replica in zip(requests, owners, strict=True):
            shares[replica].append(request)
        here = [i for i, process in enumerate(self._owners) if process == jax.process_index()]
        stop, steps = threading.Event(), [0] * len(here)

        def work(engine: Engine, index: int, share: Sequence[Request]) -> list[Generation]:
            ended = []
            for request in share:
                engine.submit(request)
            while engine.pending and not stop.is_set():
                ended += engine.step()
                steps[index] += 1
            return ended

        futures = [
            self._threads.submit(work, engine, index, shares[replica])
            for index, (engine, replica) in enumerate(zip(self.engines, here, strict=True))
        ]
        interval = self._exchange.interval if self._exchange else None
        try:
            left = set(futures)
            while left:
                ended, left = concurrent.futures.wait(
                    left, interval, concurrent.futures.FIRST_EXCEPTION
                )
                for future in ended:
                    future.result()
                watch(sum(steps))
        except BaseException:
            stop.set()
            concurrent.futures.wait(futures)
            self.cancel()
            raise
        return {
            generation.request_id: generation
            for future in futures
            for generation in future.result()
        }

    def _each(self, work: Callable, arguments: Sequence) -> list:
        """Do something for all of these at once, each in a thread; raises what one of them did."""
        if len(arguments) == 1:
            return [work(arguments[0])]
        futures = [self._threads.submit(work, argument) for argument in arguments]
        concurrent.futures.wait(futures)
        return [future.result() for future in futures]


def _alone(_: int) -> None:
    """There is no other process to look after."""
