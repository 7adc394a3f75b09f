"""Log probabilities of a given text."""

import torch

from tests.makers.models import TOKENIZER, lively_model
from yanmo.generate.score import SCORED_ROWS, score


def test_few_logits_exist_at_a_time_and_the_sum_is_that_of_the_whole() -> None:
    model, ids = lively_model(block_size=300), TOKENIZER.encode("江湖夜雨十年灯" * 90)
    rows: list[int] = []
    head = model.head

    def counted(x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return head(x)

    model.head = counted  # type: ignore[method-assign]
    found = [choice.logprob for choice in score(model, ids, TOKENIZER.end_of_text, stride=300)]
    assert max(rows) <= SCORED_ROWS and sum(rows) == len(ids) == len(found)
    inputs = torch.tensor([[TOKENIZER.end_of_text, *ids[:299].tolist()]])
    with torch.no_grad():
        first = model.loss(inputs, torch.from_numpy(ids[:300])[None])
    torch.testing.assert_close(-sum(found[:300]), float(first), atol=1e-3, rtol=1e-5)
