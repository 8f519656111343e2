"""The published networks as a table: what they cost, what they take, what they reached and who says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyaction.models.model_card import ModelCard
from tinyaction.models.published import all_cards
from tinyaction.models.torchvision_published import torchvision_cards


@dataclass(frozen=True)
class PublishedRow:
    """``num_parameters`` and ``gflops`` are of the published classifier and one view of ``input``.

    ``input``: frames x height x width, and every which frame of a video of 30 a second is taken. ``accuracy``: top 1
    in percent, None where nothing is published.
    """

    name: str
    dataset: str
    num_parameters: int
    gflops: float
    input: str
    licence: str
    accuracy: float | None
    views: str
    source: str


def published_table(cards: Sequence[ModelCard] | None = None) -> list[PublishedRow]:
    """A row for each set of weights; nothing is built or fetched."""
    if cards is None:
        cards = (*all_cards(), *torchvision_cards())
    return [PublishedRow(
        card.name, card.dataset, card.num_parameters, card.gflops,
        f"{card.clip_len}x{card.size}x{card.size}" + (f" /{card.frame_interval}" if card.frame_interval else ""),
        card.licence, card.top1, card.views, card.source) for card in cards]


def table_text(rows: Sequence[PublishedRow]) -> str:
    """The rows in columns, one line each."""
    lines = [f"{'network':<18}{'weights':<13}{'parameters':>10}{'GFLOPs':>9}  {'input':<16}{'top 1':>7}  "
             f"{'licence':<13}published by"]
    for row in rows:
        accuracy = f"{row.accuracy:.1f} %" if row.accuracy is not None else "-"
        source = f"{row.source} ({row.views})" if row.views else row.source
        lines.append(f"{row.name:<18}{row.dataset:<13}{row.num_parameters / 1e6:>8.1f} M{row.gflops:>9.1f}  "
                     f"{row.input:<16}{accuracy:>7}  {row.licence:<13}{source}".rstrip())
    return "\n".join(lines)
