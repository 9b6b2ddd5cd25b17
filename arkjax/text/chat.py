"""How a question and the turns of a deliberation become one sequence of tokens."""

import functools

from arkjax.text.tokenizer import Tokenizer


class PlainChat:
    """Turns as plain text: a byline and a colon, the words, the end token.

    The layout is transcript first: the question, then the turns that are visible, then the byline
    of whoever speaks next. Everything before that last byline is the same for all who share a view.

        question: coins 4 7 , gap 3 8</s> surveyor: ... so 7</s> judge:
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.end_id = tokenizer.eos_id
        self.turn = functools.cache(self.turn)

    def question(self, text: str) -> list[int]:
        """Ids of the opening that states the question."""
        return [*self._tokenizer.encode(f"question: {text}"), self.end_id]

    def turn(self, role: str) -> list[int]:
        """Ids of the header after which the agent with this role text speaks."""
        return self._tokenizer.encode(f"{role}:")
