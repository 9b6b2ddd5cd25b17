"""The record of who contributed what: one table of messages, one of agents, beside each other.

How the figures come about is said in `arkjax.synthesis`: answer flips, leave-one-out influence and
Shapley values. What was not computed is None.
"""

import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from arkjax.errors import DataError
from arkjax.storage import storage_errors, write_atomic


@dataclasses.dataclass(frozen=True, slots=True)
class MessageCredit:
    """What one message contributed.

    Attributes:
      call_id: the message.
      problem_id: of its debate.
      agent: its author.
      round: when it was said.
      corrected: others that it put right, in messages; shared credit counts in parts.
      misled: others that it led away from the right answer.
      first: whether it was the first to state the team's final answer.
      own: whether its author came by a right answer without having read it.
      influence: nats by which the log-probability of a right message falls without it, averaged
        over its readers.
      readers: how many prompts that average is over.
    """

    call_id: str
    problem_id: str
    agent: str
    round: int
    corrected: float
    misled: float
    first: bool
    own: bool
    influence: float | None = None
    readers: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class AgentCredit:
    """What one agent contributed to one debate.

    Attributes:
      problem_id: the debate's problem.
      agent: its id.
      corrected, misled: sums over its messages.
      first, own: whether any of its messages was.
      influence: the sum over its messages, in nats; None if none has any.
      shapley: its share of the team's gain, in nats.
      shapley_error: standard error of the share; 0 where it is exact.
    """

    problem_id: str
    agent: str
    corrected: float
    misled: float
    first: bool
    own: bool
    influence: float | None = None
    shapley: float | None = None
    shapley_error: float | None = None


_ARROW = {"str": pa.string(), "int": pa.int32(), "float": pa.float64(), "bool": pa.bool_()}


def _schema(record: type) -> pa.Schema:
    kinds = [(field.name, field.type) for field in dataclasses.fields(record)]
    return pa.schema(
        [
            (name, _ARROW[(kind if isinstance(kind, type) else kind.__args__[0]).__name__])
            for name, kind in kinds
        ]
    )


_TABLES = {"messages": MessageCredit, "agents": AgentCredit}


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Who contributed what to the debates of one play.

    Attributes:
      messages: by call id.
      agents: by problem id and agent id.
    """

    messages: dict[str, MessageCredit]
    agents: dict[tuple[str, str], AgentCredit]

    @classmethod
    def of(cls, messages: Iterable[MessageCredit], agents: Iterable[AgentCredit]) -> "Attribution":
        """From the records."""
        return cls(
            {message.call_id: message for message in messages},
            {(agent.problem_id, agent.agent): agent for agent in agents},
        )

    def save(self, directory: str | Path) -> None:
        """Write `messages.parquet` and `agents.parquet`.

        Raises:
          StorageError: if they cannot be written.
        """
        with storage_errors(directory):
            Path(directory).mkdir(parents=True, exist_ok=True)
        for name, record in _TABLES.items():
            rows = [dataclasses.asdict(row) for row in getattr(self, name).values()]
            sink = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, _schema(record)), sink, compression="zstd")
            write_atomic(Path(directory) / f"{name}.parquet", sink.getvalue())

    @classmethod
    def load(cls, directory: str | Path) -> "Attribution":
        """What `save` wrote.

        Raises:
          DataError: naming the file that is missing, damaged or something else.
        """
        tables = {
            name: [_TABLES[name](**row) for row in table.to_pylist()]
            for name, table in read_tables(directory).items()
        }
        return cls.of(**tables)


def read_tables(directory: str | Path) -> dict[str, pa.Table]:
    """The tables "messages" and "agents" that `Attribution.save` wrote, as Arrow holds them.

    Raises:
      DataError: naming the file that is missing, damaged or something else.
    """
    tables = {}
    for name, record in _TABLES.items():
        path = Path(directory) / f"{name}.parquet"
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read ({error}): do the stage synthesize again (--redo)"
            ) from error
        if table.schema.names != _schema(record).names:
            raise DataError(f"{path} has other columns than {', '.join(_schema(record).names)}")
        tables[name] = table
    return tables
